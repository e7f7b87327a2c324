"""A database without an application, for lists: no background work moves a search index unasked.

`store` puts a conversation in by the way that everything comes in; a message's files are rows of
bytes that are nowhere, since lists read none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import msgspec

from agentsight.server.access import Access
from agentsight.server.attachments import store_names
from agentsight.server.attachments.model import ReceivedFile
from agentsight.server.attachments.store_facts import put_facts, read_facts
from agentsight.server.attachments.store_texts import put_text
from agentsight.server.conversations import service
from agentsight.server.db import Tx, sql
from agentsight.server.feedback.store import NewFeedback
from agentsight.server.ids import BlobId, ConversationPk, new_uid
from agentsight.server.ingest import service as ingest
from agentsight.server.ingest.batch import read_item
from agentsight.server.ingest.bodies import BatchItem, ConversationBody
from agentsight.server.ingest.model import Item
from agentsight.server.ingest.reading import Reader
from agentsight.server.messages import store_search as message_search
from agentsight.server.parts import Parts
from tests.support.http import House

_BLOB_OF = sql("SELECT blob_id, sha256 FROM attachments WHERE agent_id = $1 AND id = $2")
_HIDE = sql("UPDATE attachments SET deleted_at = 1 WHERE agent_id = $1 AND id = $2")


@dataclass
class Library:
    """A database of which no background work moves the search index: the test does."""

    parts: Parts
    house: House

    async def new_agent(self) -> Access:
        """Make an agent that has no conversations yet."""
        return (await self.house.people()).alice.access


async def index_all(parts: Parts) -> None:
    """Do what the background would: put all messages and file names into the search indexes."""
    while await message_search.index_step(parts.db):
        pass
    while await store_names.index_step(parts.db, parts.clock()):
        pass


async def store(
    parts: Parts, access: Access, conversation: dict[str, Any], *, is_learned: bool = True
) -> None:
    """Store a conversation with its files, and note the row ids.

    Without `is_learned`, it is as before the background has looked at the files.
    """
    reader = Reader(parts.settings, parts.clock())
    fields = ConversationBody.__struct_fields__
    body = ConversationBody(**{k: v for k, v in conversation.items() if k in fields})
    body.timestamp = conversation["timestamp"].isoformat()
    items: list[Item] = []
    for message in conversation["messages"]:
        plain = {k: v for k, v in message.items() if k != "files"}
        item = BatchItem(**plain | {"timestamp": message["timestamp"].isoformat()})
        files = [received(parts, access, file) for file in message.get("files", ())]
        items.append(Item(read_item(item, reader), files))
    applied = await ingest.apply_items(parts, access, reader.conversation(body), items)
    pk = ConversationPk(applied.head.pk)
    conversation["id"] = pk
    for message, stored in zip(conversation["messages"], applied.items, strict=True):
        for file, attachment_id in zip(
            message.get("files", ()), stored.attachment_ids, strict=True
        ):
            file["id"] = attachment_id
            if is_learned:
                await learn(parts, access, file)
    for feedback in conversation["feedbacks"]:
        new = NewFeedback(feedback["sentiment"], feedback["source"], None, None)
        await service.add_feedback(parts, access, pk, new)
    if conversation["is_marked"]:
        await service.change_conversation(parts, access, pk, service.Change(is_marked=True))
    if conversation["is_deleted"]:
        await service.delete_conversation(parts, access, pk)


def sha256_of(file: dict[str, Any]) -> str:
    """Return the hash of a file's bytes, which its `bytes` stand for."""
    return hashlib.sha256(file["bytes"].encode()).hexdigest()


def received(parts: Parts, access: Access, file: dict[str, Any]) -> ReceivedFile:
    """Make a file as it is when its bytes are durable."""
    uid = new_uid(parts.clock())
    key = f"blobs/{access.agent_id}/{uid[-2:]}/{uid}"
    metadata = None if file["metadata"] is None else json.dumps(file["metadata"])
    return ReceivedFile(
        file["filename"], file["mime_type"], file["detected_mime_type"], uid, key,
        sha256_of(file), file["size_bytes"], metadata,
    )  # fmt: skip


async def learn(parts: Parts, access: Access, file: dict[str, Any]) -> None:
    """Note what the background finds out of a file, and hide it where it is deleted."""

    async def unit(tx: Tx) -> None:
        row = await tx.row(_BLOB_OF, access.agent_id, file["id"])
        assert row is not None
        blob_id = BlobId(row[0])
        facts = await read_facts(tx, access.agent_id, blob_id)
        assert facts is not None
        known = msgspec.structs.replace(facts, scan=file["scan"])
        await put_facts(tx, access.agent_id, blob_id, known, now_us=parts.clock())
        if file["text"] is not None:
            text = file["text"]
            await put_text(tx, access.agent_id, blob_id, text, is_cut=False, now_us=parts.clock())
        if file["is_deleted"]:
            await tx.execute(_HIDE, access.agent_id, file["id"])

    await parts.db.write(unit)
