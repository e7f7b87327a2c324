"""The comparisons of one run of fsck: rows with objects, objects with rows, rows with rows."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agentsight.server.attachments import store_counts
from agentsight.server.blobs import BlobStore, ObjectMissing
from agentsight.server.db import Database, Tx
from agentsight.server.fsck import store
from agentsight.server.fsck.model import BlobRow, CopyRow, Options, Report, counted
from agentsight.server.fsck.store_listing import Listing
from agentsight.server.ids import AgentId
from agentsight.server.uploads.store import begun_keys

T = TypeVar("T")
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Check:
    """One run: what it works on, and what it has found."""

    db: Database
    blobs: BlobStore
    options: Options
    report: Report
    listing: Listing

    # --- Rows -> objects --------------------------------------------------------------------------

    async def blobs_have_objects(self) -> None:
        """Look for the object of every stored blob."""
        after = (0, 0)
        while rows := await self._read(lambda tx, after=after: store.blobs_after(tx, after, _PAGE)):
            after = (rows[-1].agent_id, rows[-1].blob_id)
            sizes = self.listing.sizes([row.object_key for row in rows])
            for row in rows:
                self.report.n_blobs += 1
                self.report.size_bytes += row.size_bytes
                if sizes.get(row.object_key) != row.size_bytes:
                    await self._judge_blob(row)
                elif self.options.is_reading and await self._hash(row) != row.sha256:
                    self.report.fault("wrong_hash").add(row.object_key, row.size_bytes)

    async def _judge_blob(self, row: BlobRow) -> None:
        """Look again: it may have come, or gone, while we were listing."""
        size = await self.blobs.size(row.object_key)
        if size == row.size_bytes or not await self._read(lambda tx: store.is_stored(tx, row)):
            return
        kind = "missing_object" if size is None else "wrong_size"
        n = await self._read(lambda tx: store.n_references(tx, row.agent_id, row.blob_id))
        self.report.fault(kind).add(
            f"{row.object_key} ({counted(n, 'attachment', 'attachments')})", row.size_bytes
        )

    async def _hash(self, row: BlobRow) -> str:
        hasher = hashlib.sha256()
        try:
            async with await self.blobs.read(row.object_key) as chunks:
                async for chunk in chunks:
                    hasher.update(chunk)
        except ObjectMissing:  # removed a moment ago; the next run tells if it was wrong
            return row.sha256
        return hasher.hexdigest()

    async def copies_have_objects(self) -> None:
        """Look for the object of everything that was made of a blob."""
        after = (0, 0, "")
        while rows := await self._read(
            lambda tx, after=after: store.copies_after(tx, after, _PAGE)
        ):
            after = (rows[-1].agent_id, rows[-1].blob_id, rows[-1].kind)
            sizes = self.listing.sizes([row.object_key for row in rows])
            for row in rows:
                if sizes.get(row.object_key) != row.size_bytes:
                    await self._judge_copy(row)

    async def _judge_copy(self, row: CopyRow) -> None:
        if await self.blobs.size(row.object_key) == row.size_bytes:
            return
        if not await self._read(lambda tx: store.named_among(tx, [row.object_key])):
            return
        if self.options.is_repairing:
            await self.db.write(lambda tx: store.forget_copy(tx, row))
        self.report.fault("missing_copy").add(
            row.object_key, row.size_bytes, is_repaired=self.options.is_repairing
        )

    # --- Objects -> rows --------------------------------------------------------------------------

    async def objects_have_rows(self, now_us: int) -> None:
        """Look for the row of every object that is old enough to have one."""
        not_after = now_us - self.options.min_age_s * 1_000_000
        for page in self.listing.pages(_PAGE, not_after_us=not_after):
            named = await self._read(
                lambda tx, page=page: store.named_among(tx, [key for key, _ in page])
            )
            for key, size in page:
                if key in named or await self.blobs.size(key) is None:
                    continue
                if self.options.is_repairing:
                    await self.blobs.delete(key)
                self.report.fault("orphan_object").add(
                    key, size, is_repaired=self.options.is_repairing
                )

    async def removals_are_finished(self, finish: Callable[[], Awaitable[int]]) -> None:
        """Look for blobs whose removal has begun and not ended, and carry them on.

        Args:
            finish: Does a part of what was broken off; returns how many steps it took.
        """
        found = {key: size for _, key, size in await self._read(store.going)}
        left = set(found)
        if self.options.is_repairing:
            # As long as it gets on: a store that refuses to remove one would hold it for ever.
            while left and await finish():
                now_left = {key for _, key, _ in await self._read(store.going)} & left
                if now_left == left:
                    break
                left = now_left
        for key, size in found.items():
            is_repaired = self.options.is_repairing and key not in left
            self.report.fault("unfinished_removal").add(key, size, is_repaired=is_repaired)

    # --- Rows among themselves --------------------------------------------------------------------

    async def counts_are_right(self) -> None:
        """Count bytes and conversations anew."""
        for agent_id, slug in await self._read(store.agents):
            wrong = await self._work(lambda tx, agent=agent_id: self._storage_counts(tx, agent))
            if wrong:
                self._count_wrong(f"bytes of agent {slug}")
            wrong = await self._work(lambda tx, agent=agent_id: self._conversations(tx, agent))
            if wrong:
                self._count_wrong(f"conversations of agent {slug}")

    def _count_wrong(self, example: str) -> None:
        self.report.fault("wrong_count").add(example, is_repaired=self.options.is_repairing)

    async def _storage_counts(self, tx: Tx, agent_id: AgentId) -> bool:
        if self.options.is_repairing:
            await store.lock_counts(tx, agent_id)
        counted, true = await store.storage_counts(tx, agent_id)
        if counted == true:
            return False
        if self.options.is_repairing:
            await store.clear_storage_counts(tx, agent_id)
            await store_counts.add_counts(tx, agent_id, 0, *true)
        return True

    async def _conversations(self, tx: Tx, agent_id: AgentId) -> bool:
        counted, true = await store.conversation_counts(tx, agent_id)
        if counted == true:
            return False
        if self.options.is_repairing:
            await store.add_conversations(tx, agent_id, true[0] - counted[0], true[1] - counted[1])
        return True

    async def facts_are_copied(self) -> None:
        """Compare the facts in attachments with those of their blobs."""
        while rows := await self._read(lambda tx: store.stale_facts(tx, _PAGE)):

            async def mend(tx: Tx, rows: list[tuple[AgentId, int, str]] = rows) -> None:
                for agent_id, attachment_id, _ in rows:
                    await store.mend_facts(tx, agent_id, attachment_id)

            if self.options.is_repairing:
                await self.db.write(mend)
            for _, _, uid in rows:
                self.report.fault("stale_facts").add(uid, is_repaired=self.options.is_repairing)
            if not self.options.is_repairing:
                return

    async def leftovers_are_swept(self, leftover_age_s: int, now_us: int) -> None:
        """Count, or remove, what broken uploads left and no row will go on with.

        Args:
            leftover_age_s: As the settings have it; those of the server may be others, so the rows
                are asked too.
            now_us: The time.
        """
        age_s = max(self.options.min_age_s, leftover_age_s)
        begun = await self._read(lambda tx: begun_keys(tx, now_us))
        n_found, size = await self.blobs.count_leftovers(older_than_s=age_s, besides=begun)
        if not n_found:
            return
        fault = self.report.fault("leftover")
        fault.n_found, fault.size_bytes = n_found, size
        if self.options.is_repairing:
            fault.n_repaired = await self.blobs.sweep(older_than_s=age_s, besides=begun)

    async def _read(self, query: Callable[[Tx], Coroutine[Any, Any, T]]) -> T:
        return await self.db.read(query, slow=True)

    async def _work(self, unit: Callable[[Tx], Coroutine[Any, Any, T]]) -> T:
        """Run a unit that writes when something is repaired, and only reads otherwise."""
        return await (self.db.write(unit) if self.options.is_repairing else self._read(unit))
