"""All checks in their order: first what others rest on, then the way in from outside.

No check stops another: what breaks is a finding, and what cannot be asked any more says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from agentsight.server.attachments.links import Links
from agentsight.server.attachments.model import ServedRow
from agentsight.server.attachments.store import served_by_uid
from agentsight.server.blobs import BlobStore
from agentsight.server.blobs.opening import open_store_of
from agentsight.server.db import Database, DatabaseError, Tx, open_database
from agentsight.server.db.migrate import check_schema
from agentsight.server.doctor import files, inside, outside, store
from agentsight.server.doctor.asking import NoAnswer
from agentsight.server.doctor.model import Finding, Hider, skew_finding
from agentsight.server.doctor.outside import Target
from agentsight.server.doctor.probe import Probes
from agentsight.server.instance import store as instance_store
from agentsight.server.instance.signing import keys_of_setting
from agentsight.server.parts import Clock, wall_clock
from agentsight.server.problems import Problem
from agentsight.server.settings import Settings, variable_of

CHECK_TIMEOUT_S = 300.0
"""Of one group of checks: long enough for 30 MB over a slow line."""

Findings = list[Finding]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database says of the instance."""

    keys: list[tuple[str, bytes]]
    instance_uid: str | None


async def examine(
    settings: Settings, *, environ: Mapping[str, str], clock: Clock = wall_clock
) -> AsyncIterator[Finding]:
    """Yield what is found, as it is found; never raises, and never shows a secret.

    Nothing is changed but a probe object in the store, which is removed again.

    Args:
        settings: Those that the server runs with.
        environ: The environment, for variables that no setting reads.
        clock: This machine's time; tests bring their own.
    """
    hider = Hider.of(settings, environ)
    async with AsyncExitStack() as stack:
        for finding in inside.check_settings(settings, environ):
            yield hider.clean(finding)
        opened: list[Database] = []
        async for finding in _examine_inside(settings, clock, stack, opened):
            yield hider.clean(finding)
        async for finding in _examine_outside(settings, clock, opened):
            yield hider.clean(finding)


async def _examine_inside(
    settings: Settings, clock: Clock, stack: AsyncExitStack, opened: list[Database]
) -> AsyncIterator[Finding]:
    for finding in await _guarded("database", lambda: _open(settings, stack, opened)):
        yield finding
    blobs: list[BlobStore] = []

    async def storage() -> Findings:
        store_of_bytes = open_store_of(settings)
        stack.push_async_callback(store_of_bytes.close)
        blobs.append(store_of_bytes)
        return await inside.check_storage(store_of_bytes, settings)

    for finding in await _guarded("storage", storage):
        yield finding
    if not opened or not blobs:
        yield Finding("instance", "skip", "needs the database and the store")
        return
    db = opened[0]
    for finding in await _guarded("instance", lambda: inside.check_bond(db, blobs[0])):
        yield finding
    if settings.clamd is not None:
        scanner = settings.clamd
        for finding in await _guarded("scans", lambda: inside.check_scans(db, scanner)):
            yield finding
    for finding in await _guarded("examiner", lambda: files.check_examiner(settings)):
        yield finding
    for finding in await _guarded("sandbox", lambda: files.check_sandbox(settings)):
        yield finding
    background = await _guarded("background", lambda: files.check_background(db, settings, clock()))
    for finding in background:
        yield finding
    if db.dialect == "postgresql":
        for finding in await _guarded("clock", lambda: _check_database_clock(db, clock)):
            yield finding


async def _open(settings: Settings, stack: AsyncExitStack, opened: list[Database]) -> Findings:
    await asyncio.to_thread(check_schema, settings.database_url)
    db = await stack.enter_async_context(await open_database(settings.database_url))
    opened.append(db)
    found = await inside.check_database(db, settings)
    if await db.read(lambda tx: instance_store.read_value(tx, instance_store.FIRST_START)):
        found += inside.check_leftovers(settings)
    return found


async def _check_database_clock(db: Database, clock: Clock) -> Findings:
    before = clock()
    now_us = await db.read(store.database_now_us)
    return [skew_finding("the database", (now_us - (before + clock()) / 2) / 1_000_000)]


# --- Outside --------------------------------------------------------------------------------------


async def _examine_outside(
    settings: Settings, clock: Clock, opened: list[Database]
) -> AsyncIterator[Finding]:
    known = await _what_is_known(settings, opened)
    if settings.public_url is None:
        text = f"{variable_of('public_url')} is not set: the server on this machine is looked at"
        remedy = "Set it before others than this machine use the server; or give --url here."
        yield Finding("address", "skip", text, remedy)
    target = Target(
        url=settings.public_url or _local_url(settings),
        is_public=settings.public_url is not None,
        clock=clock,
        probes=Probes(known.keys) if known.keys else None,
        instance_uid=known.instance_uid,
    )
    address = await _guarded("address", lambda: outside.check_address(target))
    for finding in address:
        yield finding
    if not any(finding.check == "address" and finding.state == "ok" for finding in address):
        for name in ("same instance", "links", "body limit", "ranges"):
            yield Finding(name, "skip", "needs the server to answer")
        return
    async for finding in _examine_answering(settings, target, known, opened):
        yield finding


async def _examine_answering(
    settings: Settings, target: Target, known: _Known, opened: list[Database]
) -> AsyncIterator[Finding]:
    said: list[dict[str, Any]] = []

    async def identity() -> Findings:
        found, answer = await outside.check_identity(target)
        said.extend([answer] if answer is not None else [])
        return found

    for finding in await _guarded("same instance", identity):
        yield finding
    if said:
        for finding in await _guarded("links", lambda: outside.check_links(target, said[0])):
            yield finding
    else:
        yield Finding("links", "skip", "needs the instance to be recognised")
    for finding in await _guarded("body limit", lambda: outside.check_bodies(target)):
        yield finding
    base = str(said[0]["files_base"]) if said else settings.files_url or target.url
    for finding in await _guarded("ranges", lambda: _check_file(base, target, known, opened)):
        yield finding


async def _check_file(base: str, target: Target, known: _Known, opened: list[Database]) -> Findings:
    row = await _any_file(opened[0]) if opened and known.keys else None
    if row is None:
        why = "no file is stored yet: run again when there is one"
        return [Finding("ranges", "skip", why if opened else "needs the database")]
    now_us = target.clock()
    link, _ = Links(known.keys).file_url(row.agent_id, row.uid, row.filename, base, now_us)
    return await outside.check_ranges(link, row.size_bytes)


async def _any_file(db: Database) -> ServedRow | None:
    async def query(tx: Tx) -> ServedRow | None:
        uid = await store.any_file_uid(tx)
        return None if uid is None else await served_by_uid(tx, uid)

    row = await db.read(query, slow=True)
    return None if row is None or row.is_deleted else row


async def _what_is_known(settings: Settings, opened: list[Database]) -> _Known:
    """Read the signing keys and the instance's uid; make none."""
    keys = keys_of_setting(settings.secret_key)
    if not opened:
        return _Known(keys, None)
    try:
        kept = await opened[0].read(instance_store.read_signing_keys)
        uid = await opened[0].read(
            lambda tx: instance_store.read_value(tx, instance_store.INSTANCE_UID)
        )
    except DatabaseError:
        return _Known(keys, None)
    return _Known([*keys, *((key_id, bytes.fromhex(secret)) for key_id, secret in kept)], uid)


def _local_url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(  # noqa: S104 - asked, not bound
        settings.host, settings.host
    )
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


async def _guarded(check: str, work: Callable[[], Coroutine[Any, Any, Findings]]) -> Findings:
    """Run one group of checks; whatever breaks in it is what it has found."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await work()
    except NoAnswer as error:
        return [Finding(check, "fail", str(error), error.remedy)]
    except TimeoutError:
        return [Finding(check, "fail", f"no answer within {CHECK_TIMEOUT_S:.0f} s", "")]
    except Problem as error:
        return [Finding(check, "fail", error.detail, _REMEDIES.get(check, ""))]
    except Exception as error:  # noqa: BLE001 - the edge of a check: what is wrong is the answer
        text = str(error) or type(error).__name__
        return [Finding(check, "fail", text, _REMEDIES.get(check, ""))]


_REMEDIES = {
    "database": f"Mend {variable_of('database_url')} or --data, or start the database.",
    "storage": f"Mend {variable_of('storage_url')}, its permissions, or the disk or store.",
}
