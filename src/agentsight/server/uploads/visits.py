"""One request's time with an upload: it holds the lease, hands bytes to the store, notes how far.

Beside the request runs its keeper: it renews the lease while bytes flow or are checked, notes the
offset every few megabytes and every second, and lets go when no bytes come or when a newer request
wants the upload (see `turns`), so that a client whose connection broke can go on over a new one.
Bytes first, then the row: what a row counts is durable.

What holds the promise of one writer: the lease in the row (every note names it; one that is not
ours any more changes nothing), and below it the store's own (a lock on the local file, parts by
number in S3).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from agentsight.server.access import Access
from agentsight.server.attachments import store_counts
from agentsight.server.attachments.keeping import agent_limit_reached, upload_expired
from agentsight.server.blobs import (
    Chunk,
    ObjectBusy,
    ObjectExists,
    ObjectMissing,
    PartsWriter,
    StorageFull,
    StorageUnavailable,
)
from agentsight.server.db import Tx
from agentsight.server.db.errors import DatabaseError
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem
from agentsight.server.uploads import store
from agentsight.server.uploads.hashes import HashKeeper, RunningHash
from agentsight.server.uploads.model import IDLE_S, KEEP_S, LEASE_S, RENEW_S, Upload
from agentsight.server.uploads.storage import taken_bytes
from agentsight.server.uploads.store import Held
from agentsight.server.uploads.turns import await_turn, locked, taken_over

log = logging.getLogger("agentsight.server")
_NOTE_BYTES: Final = 8 * 1024 * 1024
_HOUR_US: Final = 3600 * 1_000_000
_MAX_TURNS: Final = 2
"""So often a request waits again that another was quicker than."""
HASHES: Final = HashKeeper()
"""Of this process: an upload's uid is nobody else's."""


def conflict(upload: Upload) -> Problem:
    """Make the answer for bytes that do not go on where the upload stands."""
    text = f"Upload {upload.uid} stands at offset {upload.offset}: ask by HEAD and go on there."
    return Problem(409, "upload_conflict", text)


def size_mismatch(upload: Upload, what: str) -> Problem:
    """Make the answer for other bytes than were announced."""
    text = f"{what}; {upload.size_bytes} bytes were announced."
    return Problem(400, "size_mismatch", text)


@dataclass(frozen=True, slots=True)
class _Full:
    """Why an upload has no room: what others have or will have, and whether that has ended it."""

    taken_bytes: int
    limit: int
    is_over: bool


class Visit:
    """Holds one upload for one request. Use it as an async context manager; leaving it pauses.

    Args:
        parts: The process's parts.
        access: Whose upload it is.
        uid: Which.
        offset: Where the bytes to come belong; None: they are the whole, from the start, whatever
            was there before.
        max_agent_bytes: The agent's limit, for a request that brings bytes; None: there is none.
            From the moment it has the lease, all bytes that were announced count as taken, so that
            requests which begin at once cannot all get the same room.
    """

    upload: Upload

    def __init__(
        self,
        parts: Parts,
        access: Access,
        uid: str,
        *,
        offset: int | None,
        max_agent_bytes: int | None = None,
    ) -> None:
        self._parts = parts
        self._access = access
        self._uid = uid
        self._is_restart = offset is None
        self._max_agent_bytes = max_agent_bytes
        self.taken = offset or 0
        self.lease = ""
        self._writer: PartsWriter | None = None
        self._running: RunningHash | None = None
        self._noted = 0
        self._failure: Exception | None = None
        self._is_finishing = False
        self._is_over = False
        self._is_published = False
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._now_s = asyncio.get_running_loop().time
        self._last_byte_s = self._last_sign_s = self._now_s()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._begin(max_turns=_MAX_TURNS)
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # To its end even if we are cancelled: what came is kept, and the lease given back.
        await asyncio.shield(asyncio.ensure_future(self._leave(is_failed=error is not None)))

    @property
    def is_published(self) -> bool:
        """Say whether all bytes stand under their key already: a crash came before the row."""
        return self._is_published

    async def take(self, chunk: Chunk) -> None:
        """Take the next bytes.

        Raises:
            Problem: 400 at the byte that passes the announced size (the upload is over), 409 when
                a newer request has taken the upload over meanwhile.
            StorageFull: The disk is nearly full; what came before is kept.
        """
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            if not self.lease:  # bytes come again after a long pause
                await self._begin()
            if self._writer is None:
                raise conflict(self.upload)
            self._parts.disks.require_room(n_written=len(chunk))
            if self.taken + len(chunk) > self.upload.size_bytes:
                await self._end()
                raise size_mismatch(self.upload, "More bytes came; nothing was stored")
            await self._writer.write(chunk)
            self.taken += len(chunk)
            self._last_byte_s = self._now_s()
            if self._writer.offset - self._noted >= _NOTE_BYTES:
                self._wake.set()

    async def publish(self) -> RunningHash | None:
        """Make the whole object durable under its key.

        Returns:
            The hash of its bytes, where it was kept running.
        """
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            if not self.lease:
                await self._begin()
            self._is_finishing = True
            writer = self._writer
            if writer is None:
                return None
            try:
                await writer.finish()
            except ObjectExists:  # a crash came between the object and the row
                if await self._parts.blobs.size(self.upload.object_key) != self.upload.size_bytes:
                    raise StorageUnavailable("An upload's bytes cannot be published.") from None
                self._running = None
            self._writer = None
            await writer.__aexit__(None, None, None)
            running, self._running = self._running, None
            HASHES.drop(self._uid)
            return running

    async def refuse(self) -> None:
        """Let the upload expire, and remove what came of it."""
        async with self._lock:
            await self._end()

    def done(self) -> None:
        """Note that the row says "stored", and holds no lease any more."""
        self.lease = ""

    # --- Taking it up and letting go --------------------------------------------------------------

    async def _begin(self, *, max_turns: int = 0) -> None:
        while (other := await self._take_lease()) is not None:
            if max_turns == 0:
                raise locked(other, self._parts.clock())
            max_turns -= 1
            await await_turn(self._parts, self._access, other)
        try:
            if self._is_restart:
                await self._start_anew()
            elif self.taken != self.upload.offset:
                raise conflict(self.upload)
            await self._open_writer()
        except BaseException:
            await self._release()
            raise
        self._last_byte_s = self._now_s()

    async def _take_lease(self) -> Upload | None:
        """Take the upload for us; return it as it is where another request has it."""
        parts, access, now = self._parts, self._access, self._parts.clock()
        lease, until = secrets.token_hex(16), now + LEASE_S * 1_000_000

        async def take(tx: Tx) -> tuple[Upload | None, Upload | None, _Full | None]:
            if self._max_agent_bytes is not None:
                await store_counts.lock_counts(tx, access)
            ours = await store.take_lease(tx, access, self._uid, lease, now_us=now, until_us=until)
            if ours is None:
                return None, await store.find(tx, access, self._uid), None
            return ours, ours, await self._give_back_if_full(tx, ours, lease, now)

        upload, found, full = await parts.db.write(take)
        if upload is not None and full is not None:
            if full.is_over:
                HASHES.drop(self._uid)
                await discard(parts, upload, upload.parts)
            raise agent_limit_reached(full.taken_bytes, full.limit)
        if upload is not None:
            self.upload, self.lease = upload, lease
            return None
        if found is None or found.state_at(now) == "expired":
            raise upload_expired(self._uid)
        if found.state == "stored":
            raise conflict(found)
        return found

    async def _give_back_if_full(
        self, tx: Tx, upload: Upload, lease: str, now_us: int
    ) -> _Full | None:
        """Give a lease back in its own unit where the bytes to come do not fit beside what is there
        and what others send just now; an upload that would not fit without those either is over."""
        limit = self._max_agent_bytes
        if limit is None or upload.is_whole:
            return None
        taken = await taken_bytes(tx, self._access, now_us)
        if taken.soon <= limit:
            return None
        is_over = taken.now - upload.offset + upload.size_bytes > limit
        if is_over:
            await store.end(tx, self._access, upload.uid, lease, now_us=now_us)
        else:
            await store.release_lease(tx, self._access, upload.uid, lease)
        return _Full(taken.soon - upload.size_bytes, limit, is_over)

    async def _start_anew(self) -> None:
        """Forget what came before: this request brings the whole file."""
        self._is_restart = False
        upload, blobs = self.upload, self._parts.blobs
        HASHES.drop(self._uid)
        if upload.parts or upload.offset:
            try:
                await blobs.abandon_parts(upload.object_key, upload.parts)
            except ObjectBusy:
                raise locked(upload, self._parts.clock()) from None
            self.upload = await self._note(0, "")
        await blobs.delete(upload.object_key)  # of a crash before its row; no row names it

    async def _open_writer(self) -> None:
        upload, blobs = self.upload, self._parts.blobs
        self._running = HASHES.take(self._uid, upload.offset)
        self._noted = upload.offset
        try:
            writer = await blobs.resume_parts(upload.object_key, upload.parts, hasher=self._running)
        except ObjectBusy:
            raise locked(upload, self._parts.clock()) from None
        except ObjectMissing:
            if await blobs.size(upload.object_key) != upload.size_bytes:
                log.warning("the bytes of an unfinished upload are gone: %s", upload.object_key)
                await self._end()
                raise upload_expired(self._uid) from None
            self._is_published = True
            return
        self._writer = await writer.__aenter__()

    async def _leave(self, *, is_failed: bool) -> None:
        self._is_over = True
        self._wake.set()
        if self._keeper is not None:
            await self._keeper
        async with self._lock:
            try:
                await self._rest()
            except (DatabaseError, StorageUnavailable) as error:
                # The lease ends by itself, and the row says less than is there: sent again.
                log.warning("an upload was left as it is: %s: %s", self._uid, error)
                if not is_failed:
                    raise

    async def _rest(self) -> None:
        """Make durable what came, note it, close the file and give the lease back."""
        writer, self._writer = self._writer, None
        running, self._running = self._running, None
        if writer is None:
            await self._release()
            return
        try:
            try:
                if self._failure is None:
                    await writer.pause()
            finally:
                with contextlib.suppress(StorageFull, StorageUnavailable):
                    await writer.__aexit__(None, None, None)
        except (StorageFull, StorageUnavailable) as error:
            self._failure = error
        if self._failure is not None:
            running = None
        if await self._advance(writer.offset, writer.state, is_last=True) is not Held.LOST:
            if running is not None and running.back_to(writer.offset):
                HASHES.keep(self._uid, running)
            self.taken = self.taken if self._failure is None else writer.offset
        self.lease = ""

    async def _release(self) -> None:
        lease, self.lease = self.lease, ""
        if lease:
            access, uid = self._access, self._uid
            await self._parts.db.write(lambda tx: store.release_lease(tx, access, uid, lease))

    async def _end(self) -> None:
        """Let the row expire, if it is ours still, and then remove what is there."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(StorageFull, StorageUnavailable):
                await writer.__aexit__(None, None, None)
        HASHES.drop(self._uid)
        lease, self.lease = self.lease, ""
        access, uid, now = self._access, self._uid, self._parts.clock()
        is_ours = await self._parts.db.write(
            lambda tx: store.end(tx, access, uid, lease, now_us=now)
        )
        if is_ours:
            parts = writer.state if writer is not None else self.upload.parts
            await discard(self._parts, self.upload, parts)

    # --- The keeper -------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while not self._is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_S):
                    await self._wake.wait()
            self._wake.clear()
            if self._is_over:
                return
            try:
                await self._keep_once()
            except (DatabaseError, StorageUnavailable) as error:
                log.warning("an upload's lease was not renewed: %s: %s", self._uid, error)

    async def _keep_once(self) -> None:
        if self._now_s() - self._last_byte_s >= IDLE_S:
            await self._let_go(lambda: self._now_s() - self._last_byte_s >= IDLE_S)
        await self._sync()
        writer = self._writer
        if not self.lease:
            return
        if writer is not None and writer.offset > self._noted:
            held = await self._advance(writer.offset, writer.state)
            await self._stop_if_full()
        else:
            held = await self._renew()
        if held is Held.LOST:
            self._failure = taken_over(self._uid)
        elif held is Held.WANTED and self._failure is None:
            await self._let_go(lambda: True)
            if not self.lease:
                self._failure = self._failure or taken_over(self._uid)

    async def _stop_if_full(self) -> None:
        """End the upload where the agent has more than it may by now: files that came whole
        meanwhile have taken the room."""
        limit, access, now = self._max_agent_bytes, self._access, self._parts.clock()
        if limit is None:
            return
        taken = await self._parts.db.read(lambda tx: taken_bytes(tx, access, now))
        if taken.now <= limit:
            return
        async with self._lock:
            if self.lease and not self._is_finishing:
                self._failure = agent_limit_reached(taken.now - self._noted, limit)
                await self._end()

    async def _sync(self) -> None:
        """Make durable what a slow client has sent; a fast one's bytes are, by their number."""
        async with self._lock:
            writer = self._writer
            if writer is None or self._is_finishing or self._failure is not None:
                return
            if writer.offset == self._noted < self.taken:
                try:
                    await writer.sync()
                except (StorageFull, StorageUnavailable) as error:
                    self._failure = error
                    await self._rest()

    async def _let_go(self, is_so: Callable[[], bool]) -> None:
        """Give the upload back between two chunks; never while it is being finished."""
        async with self._lock:
            if self.lease and not self._is_finishing and is_so():
                await self._rest()

    async def _renew(self) -> Held:
        db, access, uid, lease = self._parts.db, self._access, self._uid, self.lease
        until = self._parts.clock() + LEASE_S * 1_000_000
        if self._now_s() - self._last_sign_s < RENEW_S:
            held = await db.read(lambda tx: store.look(tx, access, uid, lease))
        else:
            held = await db.write(
                lambda tx: store.renew_lease(tx, access, uid, lease, until_us=until)
            )
            self._last_sign_s = self._now_s()
        return self._unless_ended(held)

    def _unless_ended(self, held: Held) -> Held:
        """Take a lease that we have given back in order, meanwhile, for no loss."""
        return Held.OURS if held is Held.LOST and not self.lease else held

    async def _advance(self, offset: int, state: str, *, is_last: bool = False) -> Held:
        access, uid, lease, now = self._access, self._uid, self.lease, self._parts.clock()
        expires_at = now + self._parts.settings.upload_pin_hours * _HOUR_US

        async def unit(tx: Tx) -> Held:
            held = await store.advance(
                tx,
                access,
                uid,
                lease,
                offset=offset,
                parts=state,
                until_us=now + LEASE_S * 1_000_000,
                expires_at=expires_at,
                now_us=now,
            )
            if is_last:
                await store.release_lease(tx, access, uid, lease)
            return held

        held = await self._parts.db.write(unit)
        self._noted, self._last_sign_s = max(self._noted, offset), self._now_s()
        return self._unless_ended(held)

    async def _note(self, offset: int, state: str) -> Upload:
        """Set the row back, and read it."""
        if await self._advance(offset, state) is Held.LOST:
            raise conflict(self.upload)
        access, uid = self._access, self._uid
        found = await self._parts.db.read(lambda tx: store.find(tx, access, uid))
        return found or self.upload


async def discard(parts: Parts, upload: Upload, state: str) -> None:
    """Remove what is there of an upload whose row has ended; what stays is swept later."""
    try:
        await parts.blobs.abandon_parts(upload.object_key, state)
        await parts.blobs.delete(upload.object_key)
    except (StorageUnavailable, ObjectBusy) as error:
        log.warning("an upload that has ended was not removed: %s: %s", upload.uid, error)
