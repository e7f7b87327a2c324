"""An application that examines files, and what its tests do with it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from agentsight.server.previews.examining import examine_step
from tests.support.http import House, Person, base64_file

FILES = Path(__file__).parents[2] / "data" / "files"
_DEADLINE_S = 60.0


async def send_files(person: Person, *files: tuple[str, bytes], **fields: Any) -> dict[str, Any]:
    """Hand in files by name, each with the type that its name says; return their rows by name."""
    pk = await person.conversation(f"c-{files[0][0]}")
    body = {
        "conversation": pk,
        "attachments": [base64_file(data, name, **fields) for name, data in files],
    }
    answer = await person.post("/api/attachments/", body)
    assert answer.status == 201, answer.body
    return {row["filename"]: row for row in answer.json()["attachments"]}


async def examine_all(house: House, person: Person) -> None:
    """Let an agent's files be examined, here or by the application's own chore."""
    agent = person.access.agent_id
    end_at = time.monotonic() + _DEADLINE_S
    while await house.count("blob_jobs", "agent_id = $1 AND kind = 'examine'", agent):
        assert time.monotonic() < end_at, "the files were not examined in time"
        if not await examine_step(house.parts):
            await asyncio.sleep(0.02)  # the chore has them in hand


async def read_rows(person: Person, rows: dict[str, Any]) -> dict[str, Any]:
    """Read rows anew."""
    found: dict[str, Any] = {}
    for name, row in rows.items():
        answer = await person.get(f"/api/v1/attachments/{row['uid']}/")
        assert answer.status == 200, answer.body
        found[name] = answer.json()
    return found


def data_of(name: str) -> bytes:
    """Return the bytes of a real file."""
    return (FILES / name).read_bytes()
