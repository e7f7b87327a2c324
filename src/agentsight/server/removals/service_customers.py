"""What the operator can ask about a customer: where they are, and everything that is kept of them.

Erasing them is in `service.py`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import zipfile
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from agentsight.server.access import Access
from agentsight.server.archives.model import safe_name
from agentsight.server.audits import store as audits
from agentsight.server.blobs import ObjectMissing
from agentsight.server.db import Tx
from agentsight.server.ids import ConversationPk
from agentsight.server.parts import Parts
from agentsight.server.problems import not_found
from agentsight.server.removals import store_customers, store_export
from agentsight.server.removals.store_customers import Holding
from agentsight.server.removals.store_export import TABLES, Exported, ExportedFile
from agentsight.server.times import to_text

_STEP: Final = 500
_TIMES: Final = ("timestamp", "sent_at", "started_at", "ended_at", "created_at", "updated_at",
                 "deleted_at", "expires_at")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """Where a customer is, and ids that differ from theirs in case only."""

    holdings: list[Holding]
    alike: list[str]


async def find_customer(parts: Parts, access: Access, customer_id: str) -> Found:
    """Say which agents keep something of a customer, and how much."""

    async def query(tx: Tx) -> Found:
        holdings: list[Holding] = []
        alike: set[str] = set()
        for agent_id in await store_customers.agents_of(tx, access):
            agent = access.within(agent_id)
            held = await store_customers.holding(tx, agent, customer_id)
            holdings += [held] if held is not None else []
            alike.update(await store_customers.like_it(tx, agent, customer_id))
        return Found(holdings, sorted(alike))

    return await parts.db.read(query, slow=True, snapshot=True)


@dataclass(slots=True)
class Export:
    """What was written: rows by table, files, and those whose bytes are not there."""

    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    n_files: int = 0
    n_bytes: int = 0
    missing: list[str] = field(default_factory=list[str])


async def export_customer(parts: Parts, access: Access, customer_id: str, to: Path) -> Export:
    """Write everything that is kept of a customer into a ZIP, hidden things too.

    One file a table with a JSON object a line, the files themselves, and `manifest.json`. The ZIP
    has its name when it is whole.

    Raises:
        Problem: 404 when nothing is kept of them.
        OSError: It cannot be written, or `to` is there already.
        StorageUnavailable: The store of bytes does not answer.
    """
    _refuse_taken(to)
    found = await find_customer(parts, access, customer_id)
    if not found.holdings:
        raise not_found()
    with _scratch(to) as raw:
        export = await _Writer(parts, access, customer_id).write(raw)
    n_rows = sum(export.rows.values())
    detail = json.dumps({"rows": n_rows, "files": export.n_files})
    now = parts.clock()
    await parts.db.write(
        lambda tx: audits.add(tx, access, "export", "customer", None, detail=detail, now_us=now)
    )
    return export


def _refuse_taken(to: Path) -> None:
    if to.exists():
        raise FileExistsError(errno.EEXIST, "there is a file of this name already", str(to))


@contextlib.contextmanager
def _scratch(to: Path) -> Generator[IO[bytes]]:
    """Open a file beside `to` that only we may read; it gets the name when the block ends well."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{to.name}.", suffix=".part", dir=to.parent)
    except OSError as error:  # it names a file that nobody has asked for
        raise OSError(error.errno, error.strerror, str(to.parent)) from error
    try:
        with os.fdopen(handle, "w+b") as raw:
            yield raw
            raw.flush()
            os.fsync(raw.fileno())
        _refuse_taken(to)
        os.rename(name, to)
    finally:
        Path(name).unlink(missing_ok=True)


class _Writer:
    """Writes one export: the tables a step at a time, the files as streams."""

    def __init__(self, parts: Parts, access: Access, customer_id: str) -> None:
        self._parts = parts
        self._access = access
        self._customer_id = customer_id
        self._export = Export()
        self._files: list[dict[str, Any]] = []

    async def write(self, raw: IO[bytes]) -> Export:
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
            for table in TABLES:
                with archive.open(f"{table}.jsonl", "w", force_zip64=True) as entry:
                    async for agent, row in self._rows(table):
                        entry.write(_line({"agent": agent} | row))
                        self._export.rows[table] += 1
            async for access, pk in self._conversations():
                await self._write_files(archive, access, pk)
            archive.writestr("manifest.json", json.dumps(self._manifest(), indent=2))
        return self._export

    def _manifest(self) -> dict[str, Any]:
        return {
            "customer_id": self._customer_id,
            "exported_at": to_text(self._parts.clock()),
            "rows": self._export.rows,
            "files": self._files,
            "missing": self._export.missing,
        }

    async def _agents(self) -> AsyncIterator[tuple[str, Access]]:
        access = self._access
        agents = await self._parts.db.read(lambda tx: store_customers.agents_of(tx, access))
        for agent_id in agents:
            scope = access.within(agent_id)
            held = await self._parts.db.read(
                lambda tx, scope=scope: store_customers.holding(tx, scope, self._customer_id),
                slow=True,
            )
            if held is not None:
                yield held.agent, scope

    async def _heads(self) -> AsyncIterator[tuple[str, Access, Exported]]:
        async for slug, scope in self._agents():
            after = 0
            while True:
                rows = await self._parts.db.read(
                    lambda tx, scope=scope, after=after: store_export.conversations(
                        tx, scope, self._customer_id, after, _STEP
                    ),
                    slow=True,
                )
                for row in rows:
                    yield slug, scope, row
                if len(rows) < _STEP:
                    break
                after = rows[-1]["id"]

    async def _conversations(self) -> AsyncIterator[tuple[Access, ConversationPk]]:
        async for _, scope, row in self._heads():
            yield scope, ConversationPk(row["id"])

    async def _rows(self, table: str) -> AsyncIterator[tuple[str, Exported]]:
        async for slug, scope, head in self._heads():
            if table == "conversations":
                yield slug, head
                continue
            pk, after = ConversationPk(head["id"]), 0
            while True:
                rows = await self._parts.db.read(
                    lambda tx, scope=scope, pk=pk, after=after: store_export.rows_of(
                        tx, scope, table, pk, after, _STEP
                    ),
                    slow=True,
                )
                for row in rows:
                    yield slug, row
                if len(rows) < _STEP:
                    break
                after = rows[-1]["blob_id" if table == "blob_texts" else "id"]

    async def _write_files(
        self, archive: zipfile.ZipFile, access: Access, pk: ConversationPk
    ) -> None:
        after = 0
        while True:
            files = await self._parts.db.read(
                lambda tx, after=after: store_export.files_of(tx, access, pk, after, _STEP),
                slow=True,
            )
            for file in files:
                await self._write_file(archive, file)
            if len(files) < _STEP:
                return
            after = files[-1].attachment_id

    async def _write_file(self, archive: zipfile.ZipFile, file: ExportedFile) -> None:
        path = f"files/{file.uid}/{safe_name(file.filename)}"
        try:
            stream = await self._parts.blobs.read(file.object_key)
        except ObjectMissing:
            self._export.missing.append(file.uid)
            return
        async with stream as chunks:
            if chunks.size_bytes != file.size_bytes:  # cut by a disk or a copy: not that file
                self._export.missing.append(file.uid)
                return
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as target:
                async for chunk in chunks:
                    target.write(chunk)
        self._export.n_files += 1
        self._export.n_bytes += file.size_bytes
        self._files.append({"uid": file.uid, "path": path, "filename": file.filename,
                            "size_bytes": file.size_bytes, "sha256": file.sha256})  # fmt: skip


def _line(row: Exported) -> bytes:
    """Write a row as one line of JSON: times as people read them, JSON as it is."""
    shown: Exported = {}
    for name, value in row.items():
        if name in _TIMES and isinstance(value, int):
            shown[name] = to_text(value)
        elif store_export.is_json(name) and isinstance(value, str):
            shown[name] = json.loads(value)
        else:
            shown[name] = value
    return json.dumps(shown, ensure_ascii=False).encode() + b"\n"
