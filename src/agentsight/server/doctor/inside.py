"""Checks from inside: the settings, the database, the store of bytes."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agentsight.server.blobs import MARKER_KEY, BlobStore, ObjectMissing, StrangerStore
from agentsight.server.db import Database, DatabaseUrl, describe_url
from agentsight.server.doctor import store
from agentsight.server.doctor.model import GIB, MIB, Finding, free_disk_finding
from agentsight.server.instance.service import check_instance
from agentsight.server.scans.clamd import ping
from agentsight.server.scans.model import DaemonAway
from agentsight.server.scans.store import waiting_scans
from agentsight.server.settings import Settings, unknown_variables, variable_of
from agentsight.server.times import to_text

MAX_QUICK_CHECK_BYTES = 2 * GIB
"""A larger file takes minutes to read; its operator is told how to check it by hand."""
_PROBE_BYTES = 128 * 1024
_SPARE_CONNECTIONS = 10
"""For the operator, backups and PostgreSQL itself."""


# --- Settings -------------------------------------------------------------------------------------


def check_settings(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Look for variables that nothing reads, and settings that cannot do what they say."""
    found = [
        Finding("settings", "warn", f"no setting is called {name}", "See docs/settings.md.")
        for name in unknown_variables(environ)
    ]
    found += [Finding("settings", "warn", *pair) for pair in _ineffective(settings)]
    return found or [Finding("settings", "ok", "every setting is known and has an effect")]


def _ineffective(settings: Settings) -> Iterator[tuple[str, str]]:
    is_sqlite = settings.database_url.startswith("sqlite:")
    n_cores = os.cpu_count() or 1
    if settings.public_url:
        for name in ("allowed_hosts", "trusted_proxies"):
            if getattr(settings, name):
                text = f"{variable_of(name)} has no effect beside {variable_of('public_url')}"
                yield text, "Links begin with the public URL, always. Unset one of the two."
    if is_sqlite and settings.workers > n_cores:
        yield (
            f"{settings.workers} workers on {n_cores} cores",
            f"One writes to SQLite at a time: set {variable_of('workers')} to {n_cores} at most,"
            " or use PostgreSQL.",
        )
    if not is_sqlite and settings.storage_url.startswith("file://"):
        yield (
            "PostgreSQL with a directory of files: only this host can serve them",
            "Fine with one host; several share their files in object storage (s3://bucket).",
        )
    if settings.files_cache == "public" and not settings.public_url:
        yield (
            f"{variable_of('files_cache')}=public without a public URL",
            f"Set {variable_of('public_url')}: a shared cache needs links of one address.",
        )


def check_leftovers(settings: Settings) -> list[Finding]:
    """Look for what only the first start reads, on an instance that has had it."""
    names = ("init_key", "init_email", "init_password")
    set_names = [variable_of(name) for name in names if getattr(settings, name)]
    if not set_names:
        return []
    text = f"{', '.join(set_names)}: read by the first start only, which has been"
    return [Finding("settings", "warn", text, "Unset them, so that no secret lies about.")]


# --- Database -------------------------------------------------------------------------------------


async def check_database(db: Database, settings: Settings) -> list[Finding]:
    """Ask the open database, whose schema is known to be ours, how it is."""
    shown = describe_url(settings.database_url)
    path = DatabaseUrl.parse(settings.database_url).path
    found = [Finding("database", "ok", f"{shown} answers, and its schema is this version's")]
    if path is None:
        return found + await _check_postgresql(db, settings)
    return found + await _check_sqlite(db, path, settings)


async def _check_sqlite(db: Database, path: Path, settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    mode = await db.read(store.journal_mode)
    if mode != "wal":
        remedy = "Move the file to a local disk: this one cannot hold a write-ahead log."
        found.append(Finding("database", "fail", f"journal mode is {mode}, not wal", remedy))
    found.append(await _check_file(db, path))
    mode_bits = _mode_of(path)
    if mode_bits & 0o077:
        text = f"{path} may be read by others (mode {mode_bits:o}); it holds signing keys"
        found.append(Finding("database", "warn", text, f"chmod 600 {path}"))
    free = shutil.disk_usage(path.parent).free
    return [*found, free_disk_finding("database", free, "the database", settings)]


async def _check_file(db: Database, path: Path) -> Finding:
    size = _size_of(path)
    if size > MAX_QUICK_CHECK_BYTES:
        text = f"{size / GIB:.1f} GiB are not read through here"
        remedy = f"Now and then: sqlite3 {path} 'PRAGMA quick_check'"
        return Finding("database", "skip", text, remedy)
    verdict = await db.read(store.quick_check, slow=True)
    if verdict == "ok":
        return Finding("database", "ok", "its file is whole (quick_check)")
    text = f"its file is damaged: {verdict[:200]}"
    return Finding("database", "fail", text, "Stop the server and restore a backup.")


def _size_of(path: Path) -> int:
    return path.stat().st_size


def _mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def _check_postgresql(db: Database, settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    if await db.read(store.is_replica):
        text = "this PostgreSQL only follows another one: nothing can be written"
        found.append(Finding("database", "fail", text, "Name the primary in the address."))
    risky = [
        name
        for name in ("fsync", "full_page_writes")
        if await db.read(lambda tx, name=name: store.server_setting(tx, name)) == "off"
    ]
    if risky:
        text = f"{' and '.join(risky)} off: a crash of that machine can lose the database"
        found.append(Finding("database", "warn", text, f"Turn {' and '.join(risky)} on."))
    limit = int(await db.read(lambda tx: store.server_setting(tx, "max_connections")))
    wanted = settings.workers * settings.database_pool_size + _SPARE_CONNECTIONS
    if wanted > limit:
        text = f"up to {wanted} connections are wanted, and PostgreSQL allows {limit}"
        remedy = (
            f"Raise max_connections, or lower {variable_of('workers')} or"
            f" {variable_of('database_pool_size')}."
        )
        found.append(Finding("database", "warn", text, remedy))
    return found


# --- Storage --------------------------------------------------------------------------------------


async def check_storage(blobs: BlobStore, settings: Settings) -> list[Finding]:
    """Write, read and remove an object, and look at the room there is."""
    place = settings.storage_url
    missing = _missing_directory(settings)
    if missing is not None:
        return [missing]
    await blobs.check()
    await _round_trip(blobs)
    found = [Finding("storage", "ok", f"{place} takes, gives back and removes bytes")]
    parts = urlsplit(place)
    if parts.scheme != "file":
        left = await _check_leftovers(blobs, settings.leftover_age_s())
        return [*found, await _check_privacy(blobs), *left]
    root = Path(unquote(parts.path))
    mode_bits = _mode_of(root)
    if mode_bits & 0o007:
        text = f"{root} may be entered by everybody on this machine (mode {mode_bits:o})"
        found.append(Finding("storage", "warn", text, f"chmod o= {root}"))
    found += await _check_leftovers(blobs, settings.leftover_age_s())
    free = shutil.disk_usage(root).free
    return [*found, free_disk_finding("storage", free, "the files", settings)]


def _missing_directory(settings: Settings) -> Finding | None:
    """Say that the store's directory is not there, and which flag was perhaps forgotten."""
    parts = urlsplit(settings.storage_url)
    root = Path(unquote(parts.path))
    if parts.scheme != "file" or root.is_dir():
        return None
    text = f"the directory of the files is not there: {root}"
    if root.is_relative_to(settings.data_dir) and not settings.data_dir.is_dir():
        remedy = f"Was --data forgotten? Give it as serve has it, or {variable_of('storage_url')}."
        return Finding("storage", "fail", text, remedy)
    remedy = f"Mount its disk or restore it; or mend {variable_of('storage_url')} or --data."
    return Finding("storage", "fail", text, remedy)


async def _check_privacy(blobs: BlobStore) -> Finding:
    """Ask the store for an object as a stranger would: it must refuse."""
    link = await blobs.presigned_url(MARKER_KEY, expires_s=60, headers={})
    assert link is not None
    status = await asyncio.to_thread(_status_for_strangers, link.partition("?")[0])
    if status is None:
        text = "the address that browsers are sent to does not answer from here"
        remedy = f"Mend {variable_of('storage_public_url')}, if files are to be redirected."
        return Finding("storage", "warn", text, remedy)
    if status < 300:
        text = "the bucket is open: strangers may read every file in it"
        return Finding("storage", "fail", text, "Make it private; links work all the same.")
    return Finding("storage", "ok", "the bucket is private")


def _status_for_strangers(url: str) -> int | None:
    request = urllib.request.Request(url)  # noqa: S310 - an address of the operator's own store
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - the same
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


async def _check_leftovers(blobs: BlobStore, older_than_s: int) -> list[Finding]:
    """Count what interrupted uploads left. A start removes it; a server that runs long does not."""
    n_files, n_bytes = await blobs.count_leftovers(older_than_s=older_than_s)
    if not n_files:
        return []
    size = f"{n_bytes / MIB:.1f} MiB"
    text = f"interrupted uploads left {n_files} file{'s' * (n_files > 1)} ({size}) over a day ago"
    return [Finding("storage", "warn", text, "Restart the server: each start removes them.")]


async def _round_trip(blobs: BlobStore) -> None:
    """Raise what goes wrong, or RuntimeError when other bytes come back."""
    key, content = f"doctor-{secrets.token_hex(16)}", secrets.token_bytes(_PROBE_BYTES)
    try:
        async with await blobs.create(key) as writer:
            await writer.write(content)
            await writer.finish()
        if await blobs.read_whole(key, max_bytes=_PROBE_BYTES) != content:
            raise RuntimeError("other bytes came back than were written")
    finally:
        await blobs.delete(key)
    if await blobs.size(key) is not None:
        raise RuntimeError("a removed object is still there")


async def check_scans(db: Database, address: str) -> list[Finding]:
    """Ask the malware scanner whether it is there, and the database whether files wait for it."""
    n_waiting, since_us = await db.read(waiting_scans, slow=True)
    text = f"{n_waiting} file{'s wait' if n_waiting != 1 else ' waits'} to be scanned"
    if n_waiting and since_us is not None:
        text += f", since {to_text(since_us - since_us % 1_000_000)}"
    try:
        await ping(address)
    except DaemonAway as error:
        remedy = f"Start clamd with TCPSocket, or mend {variable_of('clamd')}; nothing is lost."
        return [Finding("scans", "fail", f"clamd does not answer: {error}; {text}", remedy)]
    return [Finding("scans", "ok", f"clamd answers at {address}; {text}")]


async def check_bond(db: Database, blobs: BlobStore) -> list[Finding]:
    """Make sure that database and store belong together."""
    try:
        uid = await check_instance(db, blobs)
    except (StrangerStore, ObjectMissing) as error:
        return [
            Finding(
                "instance", "fail", str(error),
                f"Check {variable_of('storage_url')} and {variable_of('database_url')}: they must"
                " be of one instance.",
            )
        ]  # fmt: skip
    return [Finding("instance", "ok", f"database and files belong together (instance {uid})")]
