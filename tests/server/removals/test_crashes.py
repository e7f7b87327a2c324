"""A crash between any two steps: whoever comes next finishes, and everything is counted once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentsight.server.parts import Parts
from agentsight.server.removals import service
from agentsight.server.removals.service_chores import Collector, carry_on
from agentsight.server.removals.service_work import finish
from tests.server.removals.worlds import blobs_of, fill, left
from tests.support.http import (
    House,
    People,
    TestClock,
    make_settings,
    open_house,
    open_parts,
)

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


class Crash(BaseException):
    """The end of a process, as far as the code that it ends can tell."""


class Faulty:
    """A part of a server whose calls of one kind end the process: before they happen, or after."""

    def __init__(self, part: Any, budget: list[int]) -> None:
        self._part, self._budget = part, budget

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._part, name)
        if name not in ("write", "delete", "create", "scrub"):
            return inner

        async def call(*args: Any, **options: Any) -> Any:
            self._step()
            value = await inner(*args, **options)
            self._step()
            return value

        return call

    def _step(self) -> None:
        self._budget[0] -= 1
        if self._budget[0] == 0:
            raise Crash


def faulty(parts: Parts, n_steps: int) -> Parts:
    """Return parts that end the process after so many steps on database and store together."""
    budget = [n_steps]
    return Parts(
        parts.settings,
        Faulty(parts.db, budget),  # type: ignore[arg-type]
        Faulty(parts.blobs, budget),  # type: ignore[arg-type]
        parts.links,
        parts.clock,
        ledger=parts.ledger,
    )


async def test_a_crash_at_each_step_is_healed(database_url: str, tmp_path: Path) -> None:
    """Wherever the process ends, the chores of the next one leave nothing, and count it right."""
    n_steps = 1
    async with open_house(database_url, tmp_path) as house:
        while True:
            people = await house.people()
            await fill(people.alice, "a", b"one", b"shared", customer_id="jane")
            await fill(people.alice, "b", b"shared", b"two" * 100, customer_id="jane")
            await fill(people.alice, "c", b"shared")
            try:
                await service.erase_customer(
                    faulty(house.parts, n_steps), people.organisation, "jane"
                )
            except Crash:
                is_over = False
            else:
                is_over = True
            await _heal(house.parts)
            await _check(house, people, is_begun=n_steps > 1)
            if is_over:
                break
            n_steps += 1
    assert n_steps > 15


async def _heal(parts: Parts) -> None:
    collector = Collector()
    for _ in range(50):
        n_done = await carry_on(parts)
        n_done += await collector.step(parts)
        if not n_done and not await service.finish_all(parts):
            return
    raise AssertionError("the chores do not come to an end")


async def _check(house: House, people: People, *, is_begun: bool) -> None:
    rows = await house.rows(
        "SELECT uid, stage FROM receipts WHERE organisation_id = $1",
        people.organisation.organisation_id,
    )
    if not is_begun:
        assert rows == []
        return
    ((uid, stage),) = rows
    assert stage == "complete"
    receipt = (await service.read_receipt(house.parts, people.organisation, uid)).receipt
    assert (receipt.rows.conversations, receipt.rows.messages) == (2, 12)
    assert (receipt.rows.attachments, receipt.rows.blobs) == (4, 2)
    # An object that was removed and not yet noted is removed again, and noted once.
    assert (receipt.objects, receipt.bytes) == (2, 303)
    assert (receipt.kept_blobs, receipt.kept_bytes) == (1, 6)
    assert (await left(house, people.alice))["conversations"] == 1
    assert len(blobs_of(house, people.alice)) == 1
    assert (Path(house.parts.settings.data_dir) / "files" / "erasures" / uid).is_file()


async def test_many_processes_finish_the_same_erasure(database_url: str, tmp_path: Path) -> None:
    """Each row and object is counted by one of them."""
    async with open_house(database_url, tmp_path) as house:
        people = await house.people()
        for n in range(30):
            await fill(people.alice, f"c{n}", b"%d" % n, customer_id="jane")
        with pytest.raises(Crash):
            await service.erase_customer(faulty(house.parts, 4), people.organisation, "jane")
        uid = (await house.rows("SELECT uid FROM receipts"))[0][0]
        settings = make_settings(database_url, tmp_path)
        async with (
            open_parts(settings, TestClock()) as second,
            open_parts(settings, TestClock()) as third,
        ):
            await asyncio.gather(
                *(finish(parts, uid, max_steps=10_000) for parts in (house.parts, second, third))
            )
        receipt = (await finish(house.parts, uid, max_steps=10_000)).receipt
        assert (receipt.rows.conversations, receipt.rows.blobs, receipt.objects) == (30, 30, 30)
        assert receipt.bytes == 10 + 20 * 2
        assert await left(house, people.alice) == {}


async def test_a_store_that_is_away_holds_up_the_bytes_only(own_house: House) -> None:
    """The rows are gone at once; the objects follow when it is back, by the chore."""
    house, people = own_house, await own_house.people()
    made = await fill(people.alice, "c", b"bytes")
    files = Path(house.parts.settings.data_dir) / "files"
    away = files.with_name("elsewhere")
    files.rename(away)
    answer = await people.alice.writer.send(
        "DELETE", f"/api/v1/conversations/{made['uid']}/?erase=true"
    )
    away.rename(files)
    assert (answer.status, answer.json()["state"]) == (202, "running")
    assert set(await left(house, people.alice)) <= {"search_queue"}
    await _heal(house.parts)
    assert blobs_of(house, people.alice) == set()
    receipt = (await people.alice.get(f"/api/v1/receipts/{answer.json()['uid']}/")).json()
    assert (receipt["state"], receipt["removed"]["objects"]) == ("complete", 1)
