"""Conversations with one of everything, and looks at what is left of them."""

from __future__ import annotations

import uuid
from typing import Any

from tests.support.http import House, Person, base64_file

BATCH = "/api/v1/batch/"
FILES = "/api/v1/attachments/"
CONVERSATIONS = "/api/v1/conversations/"
EARLY = "2026-09-01T10:00:00Z"
"""Before every test's clock begins."""
TABLES = (
    "conversations", "messages", "actions", "buttons", "usages", "feedbacks", "attachments",
    "search_queue",
)  # fmt: skip


def item(kind: str, **fields: Any) -> dict[str, Any]:
    """Make one item of a batch."""
    return {"type": kind, "item_key": str(uuid.uuid4()), "timestamp": EARLY} | fields


def file_of(data: bytes, filename: str = "a.txt", **fields: Any) -> dict[str, Any]:
    """Make one file of an item."""
    return base64_file(data, filename, item_key=str(uuid.uuid4())) | fields


async def send(
    person: Person, conversation_id: str, *items: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    """Apply a batch and return the answer."""
    body = {"conversation": {"conversation_id": conversation_id, "timestamp": EARLY} | fields,
            "items": list(items)}  # fmt: skip
    answer = await person.post(BATCH, body)
    assert answer.status == 200, answer.body
    return answer.json()


async def fill(
    person: Person, conversation_id: str, *files: bytes, text: str = "words", **fields: Any
) -> dict[str, Any]:
    """Make a conversation with one of everything, and a message for each file."""
    made = await send(
        person,
        conversation_id,
        item("message", content=text, author=text, metadata={"note": text}),
        item("action", action_name=text, response=text),
        item("button", button_event="e", label=text, value=text),
        item("usage", model="m", total_tokens=3),
        *(
            item("message", content=text, attachments=[file_of(data, f"{n}.txt")])
            for n, data in enumerate(files)
        ),
        **fields,
    )
    body = {"conversation": made["conversation"], "sentiment": "positive", "comment": text}
    assert (await person.post("/api/conversation-feedbacks/", body)).status == 201
    return made


def links(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the files that a batch's answer shows."""
    return [file for one in answer["items"] for file in one["attachments"]]


async def left(house: House, person: Person) -> dict[str, int]:
    """Count what is left of an agent, table by table, leaving out what is empty."""
    where = "agent_id = $1"
    counts = {t: await house.count(t, where, person.access.agent_id) for t in TABLES}
    return {table: n for table, n in counts.items() if n}


def blobs_of(house: House, person: Person) -> set[str]:
    """Return the agent's objects in the store."""
    mine = (f"blobs/{person.access.agent_id}/", f"derived/{person.access.agent_id}/")
    return {key for key in house.objects() if key.startswith(mine)}
