"""The export of a customer: all that is kept of them, of each table that could hold something."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

import agentsight.server.db as db_package
from agentsight.server.removals import service_customers
from agentsight.server.removals.store_export import EXEMPT, TABLES
from tests.server.removals.worlds import fill, item, send
from tests.server.uploads.sending import begin, patch, refer
from tests.support.http import House, People

pytestmark = pytest.mark.anyio
SCHEMA = Path(db_package.__file__).parent / "schema.sqlite.sql"


def test_each_table_of_an_agent_is_exported_or_has_a_reason_not_to_be() -> None:
    """A table that is added later is not left out of exports by forgetting it."""
    found = re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", SCHEMA.read_text(), re.DOTALL)
    of_agents = {name for name, columns in found if re.search(r"^ +agent_id ", columns, re.M)}
    assert len(of_agents) > 15
    assert set(TABLES) | set(EXEMPT) == of_agents
    assert not set(TABLES) & set(EXEMPT)
    assert all(EXEMPT.values())


async def lines_of(house: House, people: People, to: Path) -> dict[str, list[dict[str, Any]]]:
    """Export Jane and return the lines of each table."""
    await service_customers.export_customer(house.parts, people.organisation, "jane", to)
    with zipfile.ZipFile(to) as archive:
        return {
            table: [json.loads(line) for line in archive.read(f"{table}.jsonl").splitlines()]
            for table in TABLES
        }


async def test_every_table_and_column_is_in_the_export(own_house: House, tmp_path: Path) -> None:
    """One of everything: each table has a line, and nothing of another customer's."""
    house, people = own_house, await own_house.people()
    await fill(people.alice, "a", b"text", customer_id="jane", environment="Staging")
    await fill(people.alice, "b", b"other", text="john's", customer_id="john")
    await sent_by_upload(people, "a", b"by upload", "jane.txt")
    lines = await lines_of(house, people, tmp_path / "jane.zip")
    assert [table for table in TABLES if not lines[table]] == ["blob_texts"]  # nothing examined
    (conversation,) = lines["conversations"]
    assert conversation["environment"] == "staging"
    (upload,) = lines["uploads"]
    assert (upload["filename"], upload["state"], upload["size_bytes"]) == ("jane.txt", "stored", 9)
    assert upload["created_at"].startswith("2026-")
    assert "john" not in (tmp_path / "jane.zip").read_bytes().decode("latin-1")
    assert "john" not in json.dumps(lines)


async def sent_by_upload(
    people: People, conversation_id: str, data: bytes, announced: str, **fields: Any
) -> None:
    """Upload a file and refer to it."""
    path = await begin(people.alice, data, filename=announced, sha256=None)
    assert (await patch(people.alice, path, 0, data)).status == 204
    uid = path.split("/")[-2]
    answer = await refer(people.alice, uid, conversation_id=conversation_id, **fields)
    assert answer.status == 200, answer.body


async def test_the_name_that_another_gave_the_same_bytes_is_theirs(
    own_house: House, tmp_path: Path
) -> None:
    """Equal bytes are kept once; who sent them under which name is not told to the other."""
    house, people = own_house, await own_house.people()
    for name in ("jane", "john"):
        await send(people.alice, name, item("message", content="x"), customer_id=name)
        await sent_by_upload(people, name, b"the same bytes", f"passport of {name}.pdf")
        house.clock.move(10)
    await sent_by_upload(people, "jane", b"hers alone", "before.txt", filename="renamed.txt")
    uploads = (await lines_of(house, people, tmp_path / "jane.zip"))["uploads"]
    assert [row["filename"] for row in uploads] == ["passport of jane.pdf", "before.txt"]
