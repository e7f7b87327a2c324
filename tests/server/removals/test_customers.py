"""A customer: what is kept of them in all agents of an organisation, and its erasure."""

from __future__ import annotations

import pytest

from agentsight.server.removals import service, service_customers
from agentsight.server.removals.model import Rows
from agentsight.server.removals.shapes import shape_dry_run, shape_receipt
from tests.server.removals.worlds import blobs_of, file_of, fill, item, left, send
from tests.support.http import House, People

pytestmark = pytest.mark.anyio


async def fill_all(people: People) -> None:
    """Give Jane conversations with Alice and Bob, and others theirs."""
    await fill(people.alice, "a", b"jane's", b"shared", customer_id="jane")
    await fill(people.alice, "b", b"jane's", customer_id="jane")
    await fill(people.alice, "c", b"shared", customer_id="Jane")
    await fill(people.bob, "a", b"jane's", customer_id="jane")
    await fill(people.carol, "a", b"jane's", customer_id="jane")


async def test_a_dry_run_says_what_the_erasure_then_does(own_house: House) -> None:
    """The same rows, objects, bytes and kept contents; and it changes nothing."""
    house, people = own_house, await own_house.people()
    await fill_all(people)
    before = (await house.counts(), house.objects())
    would = await service.would_erase_customer(house.parts, people.organisation, "jane")
    assert (await house.counts(), house.objects()) == before
    work = await service.erase_customer(house.parts, people.organisation, "jane")
    assert work.stage == "complete"
    for receipt in (would, work.receipt):
        # The index, and what is learned of files, goes on beside the test.
        receipt.rows.message_search += receipt.rows.search_queue
        receipt.rows.search_queue = receipt.rows.derivatives = receipt.rows.blob_texts = 0
    assert would.rows == work.receipt.rows
    assert work.receipt.rows == Rows(
        conversations=3, messages=16, actions=3, buttons=3, usages=3, feedbacks=3, attachments=4,
        blobs=2, message_search=13,
    )  # fmt: skip
    assert (would.objects, would.bytes) == (work.receipt.objects, work.receipt.bytes) == (2, 12)
    assert (would.kept_blobs, would.kept_bytes) == (1, 6)
    assert (work.receipt.kept_blobs, work.receipt.kept_bytes) == (1, 6)
    shapes = shape_dry_run(would, house.db.dialect), shape_receipt(work, house.db.dialect)
    assert [shape.dry_run for shape in shapes] == [True, False]


async def test_exactly_the_customer_is_erased_in_all_agents(own_house: House) -> None:
    """Not who is written in another case, not in another organisation."""
    house, people = own_house, await own_house.people()
    await fill_all(people)
    await service.erase_customer(house.parts, people.organisation, "jane")
    assert (await left(house, people.alice))["conversations"] == 1
    assert await left(house, people.bob) == {}
    assert (await left(house, people.carol))["conversations"] == 1
    assert [len(blobs_of(house, p)) for p in (people.alice, people.bob, people.carol)] == [1, 0, 1]
    nothing = await service.erase_customer(house.parts, people.organisation, "jane")
    assert (nothing.stage, nothing.receipt.rows) == ("complete", Rows())
    assert await house.count("receipts", "subject IS NOT NULL") == 0


async def test_many_conversations_are_found_in_strides(own_house: House) -> None:
    """More than one unit marks."""
    house, people = own_house, await own_house.people()
    for n in range(230):
        await send(people.alice, f"c{n}", item("message", content="x"), customer_id="jane")
    await send(people.bob, "c", item("message", content="x"), customer_id="jane")
    work = await service.erase_customer(house.parts, people.organisation, "jane")
    assert (work.stage, work.receipt.rows.conversations) == ("complete", 231)
    assert await house.count("erasures") == 232
    assert await left(house, people.alice) == {}


async def test_find_says_where_and_how_much(own_house: House) -> None:
    """By agent; and names ids that differ in case only, for who has mistyped."""
    house, people = own_house, await own_house.people()
    await fill_all(people)
    await send(people.bob, "x", item("message", content="x", attachments=[file_of(b"12")]),
               customer_id="JANE")  # fmt: skip
    found = await service_customers.find_customer(house.parts, people.organisation, "jane")
    assert [(h.agent, h.n_conversations, h.n_files, h.n_bytes) for h in found.holdings] == [
        (people.alice.slug, 2, 3, 18), (people.bob.slug, 1, 1, 6),
    ]  # fmt: skip
    assert found.alike == ["JANE", "Jane"]
    none = await service_customers.find_customer(house.parts, people.organisation, "nobody")
    assert (none.holdings, none.alike) == ([], [])
