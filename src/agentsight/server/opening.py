"""Open an instance: database, store and keys, joined for the server and for commands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from agentsight.server.attachments.links import Links
from agentsight.server.audits.trail import Trail
from agentsight.server.blobs import Scratch
from agentsight.server.blobs.opening import disks_of, open_store_of
from agentsight.server.db import open_database
from agentsight.server.instance.ledger import ledger_key
from agentsight.server.instance.service import check_instance
from agentsight.server.instance.signing import signing_keys
from agentsight.server.media import Examiner
from agentsight.server.parts import Clock, Parts, wall_clock
from agentsight.server.settings import Settings

log = logging.getLogger("agentsight.server")
_DAY_S = 24 * 3600


@contextlib.asynccontextmanager
async def open_parts(settings: Settings, *, clock: Clock = wall_clock) -> AsyncGenerator[Parts]:
    """Open what the settings name, and close it at the end of the block.

    Raises:
        StrangerStore: Database and store do not belong together.
        DatabaseError, StorageUnavailable: One of them does not answer.
    """
    db = await open_database(settings.database_url, pool_size=settings.database_pool_size)
    try:
        blobs = open_store_of(settings)
        try:
            await check_instance(db, blobs)
            keys = await signing_keys(db, settings.secret_key, now_us=clock())
            async with _open_examiner(settings) as examiner, _open_scratch(settings) as scratch:
                yield Parts(
                    settings,
                    db,
                    blobs,
                    Links(keys, lifetime_s=settings.link_lifetime_days * _DAY_S),
                    clock,
                    audit=Trail(keeps_reads=settings.audit_reads),
                    disks=disks_of(settings),
                    scratch=scratch,
                    ledger=await ledger_key(db, now_us=clock()),
                    examiner=examiner,
                )
        finally:
            await blobs.close()
    finally:
        await db.close()


@contextlib.asynccontextmanager
async def _open_scratch(settings: Settings) -> AsyncGenerator[Scratch]:
    """Take room for copies, and remove what crashes have left there."""
    scratch = Scratch(settings.data_dir if settings.data_dir.is_dir() else None)
    if n_removed := await asyncio.to_thread(scratch.sweep):
        log.info("removed copies of files that a crash had left: %s folders", n_removed)
    try:
        yield scratch
    finally:
        await asyncio.to_thread(scratch.close)


@contextlib.asynccontextmanager
async def _open_examiner(settings: Settings) -> AsyncGenerator[Examiner | None]:
    """Make what examines files, where the settings want it; its processes start when needed."""
    if not settings.examine:
        yield None
        return
    examiner = Examiner(
        memory_bytes=settings.examine_memory_bytes, timeout_s=settings.examine_timeout_s
    )
    try:
        yield examiner
    finally:
        await examiner.close()
