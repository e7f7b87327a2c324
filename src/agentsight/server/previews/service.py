"""What a person can ask for: a thumbnail, the start of a text, a copy that plays.

Made when it is first asked for, kept as an object with a row, and then as quick as a small file.
Always bytes durable, then row, then answer: a crash in between leaves an object that no row names,
which `agentsight fsck` finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from agentsight.server import metrics
from agentsight.server.access import Access
from agentsight.server.attachments.facts import Facts
from agentsight.server.attachments.model import ServedRow
from agentsight.server.attachments.store_facts import put_facts, read_facts
from agentsight.server.attachments.store_texts import read_text_start
from agentsight.server.blobs import ObjectMissing, StorageUnavailable, derived_key
from agentsight.server.db import Tx
from agentsight.server.ids import AgentId, new_uid
from agentsight.server.media import (
    PLAYBACK_MIME_TYPES,
    Examiner,
    ExaminerDied,
    Made,
    can_play,
    can_preview,
)
from agentsight.server.parts import Parts
from agentsight.server.previews import store
from agentsight.server.previews.examining import examine_now
from agentsight.server.previews.model import (
    PLAYBACK_KIND,
    ROW_SIZE,
    TEXT_KIND,
    TEXT_PREVIEW_CHARS,
    Derived,
    Found,
    Wanted,
    derived_name,
    thumbnail_kind,
)
from agentsight.server.previews.sources import local_file, store_file
from agentsight.server.previews.turns import Turns
from agentsight.server.problems import Problem, not_found

log = logging.getLogger("agentsight.server")
_locks: WeakValueDictionary[tuple[int, int, int, str], asyncio.Lock] = WeakValueDictionary()
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Turns]] = WeakKeyDictionary()
"""One for each kind of work: each has a process of its own, and none waits for another."""


def no_preview(wanted: Wanted | None = None) -> Problem:
    """Make the answer where nothing can be made of a file.

    Args:
        wanted: What was asked for; None is a preview of whatever kind.
    """
    what = "playback copy" if wanted is not None and wanted.kind == PLAYBACK_KIND else "preview"
    return Problem(404, "no_preview", f"There is no {what} of this file.")


async def find_by_link(parts: Parts, uid: str, wanted: Wanted) -> Found | None:
    """Find what a link's uid names, and what was made of it; the signature is to be checked."""
    return await parts.db.read(lambda tx: store.found_by_uid(tx, uid, wanted.kind))


async def find_owned(parts: Parts, access: Access, uid: str, wanted: Wanted) -> Found:
    """Find a file of the caller's agent, and what was made of it.

    Raises:
        Problem: 404 when there is none, it is deleted, or it is another agent's.
    """
    found = await parts.db.read(lambda tx: store.owned_by_uid(tx, access, uid, wanted.kind))
    if found is None or found.row.is_deleted:
        raise not_found()
    return found


async def derived_file(parts: Parts, found: Found, wanted: Wanted) -> ServedRow:
    """Return the thumbnail or the copy as a file that can be served; made now if it is not there.

    Raises:
        Problem: 404 `no_preview` where none can be made; 410 when the file's bytes are gone; 503
            when store or examiner are away.
    """
    derived = found.derived
    if derived is None:
        derived = await _make_once(parts, found, wanted)
    elif parts.examiner is None:
        raise no_preview(wanted)
    if derived.object_key is None:
        raise no_preview(wanted)
    extension = "webp" if wanted.size else found.facts.playback or "bin"
    return replace(
        found.row,
        filename=derived_name(wanted, found.row.filename, extension),
        mime_type=derived.mime_type,
        declared_mime_type=None,
        detected_mime_type=derived.mime_type,
        size_bytes=derived.size_bytes,
        sha256=derived.sha256,
        object_key=derived.object_key,
        created_at=derived.created_at,
    )


async def forget_lost(parts: Parts, row: ServedRow, wanted: Wanted) -> None:
    """Forget a copy whose object is not there any more, so that it is made again."""
    agent_id, key = AgentId(row.agent_id), row.object_key
    log.warning("a preview was not there and is made anew: %s", key)
    await parts.db.write(lambda tx: store.drop_derived(tx, agent_id, row.blob_id, wanted.kind, key))
    # What is left of it would be in nobody's row.
    await _remove(parts, key)


async def text_preview(parts: Parts, found: Found) -> str:
    """Return the first characters of a file's text; looked for now where nobody has yet.

    Raises:
        Problem: As `derived_file`.
    """
    if parts.examiner is None:
        raise no_preview()
    agent_id, blob_id = AgentId(found.row.agent_id), found.row.blob_id
    if found.text_state == "waiting":
        await _look_once(parts, found)
    text = await parts.db.read(
        lambda tx: read_text_start(tx, agent_id, blob_id, TEXT_PREVIEW_CHARS)
    )
    if text is None:
        raise no_preview()
    return text


async def _look_once(parts: Parts, found: Found) -> None:
    """Examine a file, unless somebody who waited for the same has done so meanwhile."""
    agent_id, wanted = AgentId(found.row.agent_id), Wanted(TEXT_KIND)
    async with _lock(parts, found, TEXT_KIND), _turns_of(wanted).turn(agent_id):
        again = await find_by_link(parts, found.row.uid, wanted)
        if again is not None and again.text_state == "waiting":
            await examine_now(parts, agent_id, found.row.blob_id)


# --- Making ---------------------------------------------------------------------------------------


def _lock(parts: Parts, found: Found, kind: str) -> asyncio.Lock:
    """Return the lock of one blob and kind in this process, which lives while it is used."""
    key = (id(parts.db), found.row.agent_id, found.row.blob_id, kind)
    return _locks.setdefault(key, asyncio.Lock())


def _turns_of(wanted: Wanted) -> Turns:
    of_loop = _turns.setdefault(asyncio.get_running_loop(), {})
    return of_loop.setdefault("thumbnail" if wanted.size else wanted.kind, Turns())


async def _make_once(parts: Parts, found: Found, wanted: Wanted) -> Derived:
    """Make it, unless somebody is at it or it cannot be: then wait, or refuse without a try."""
    examiner = parts.examiner
    if examiner is None or not _is_possible(parts, found, wanted):
        raise no_preview(wanted)
    async with _lock(parts, found, wanted.kind):
        again = await find_by_link(parts, found.row.uid, wanted)
        if again is not None and again.derived is not None:
            return again.derived
        # What was learned of it meanwhile counts.
        if again is None or not _is_possible(parts, again, wanted):
            raise no_preview(wanted)
        async with _turns_of(wanted).turn(AgentId(found.row.agent_id)):
            return await _make(parts, examiner, again, wanted)


def _is_possible(parts: Parts, found: Found, wanted: Wanted) -> bool:
    row, facts = found.row, found.facts
    if row.size_bytes > parts.settings.max_examined_bytes:
        return False
    if wanted.size:
        return facts.preview == "image" and can_preview(row.detected_mime_type) == "image"
    return facts.playback is not None and can_play(row.detected_mime_type) == facts.playback


async def _make(parts: Parts, examiner: Examiner, found: Found, wanted: Wanted) -> Derived:
    row = found.row
    async with parts.scratch.folder() as folder:
        try:
            path = await local_file(parts, row.object_key, row.size_bytes, folder)
        except ObjectMissing as error:
            log.error("an object is not there or not whole: %s", row.object_key)
            raise Problem(410, "gone", "The file's bytes are no longer there.") from error
        out = folder / "made"
        made = await _ask(examiner, wanted, path, str(row.detected_mime_type), out)
        if made is None:
            return await _keep_none(parts, found, wanted)
        return await _keep(parts, found, wanted, made, out)


async def _ask(
    examiner: Examiner, wanted: Wanted, path: Path, mime_type: str, out: Path
) -> Made | None:
    if examiner.is_closed:
        raise _away("this server is stopping")
    try:
        if wanted.size:
            made = await examiner.thumbnail(
                path, mime_type=mime_type, max_edge=wanted.size, out=out
            )
        else:
            made = await examiner.playback(path, mime_type=mime_type, out=out)
    except ExaminerDied as error:
        if examiner.is_closed:
            raise _away("this server is stopping") from error
        # Once is enough: who asks again and again would end the process again and again.
        log.warning("a file cannot be shown: %s", error)
        return None
    except OSError as error:
        raise _away(str(error)) from error
    return made


def _away(reason: str) -> Problem:
    return Problem(503, "busy", f"Previews cannot be made now: {reason}.", retry_after_s=5)


async def _keep(parts: Parts, found: Found, wanted: Wanted, made: Made, out: Path) -> Derived:
    agent_id, now = AgentId(found.row.agent_id), parts.clock()
    key = derived_key(agent_id, new_uid(now))
    stored = await store_file(parts, key, out)
    expected = "image/webp" if wanted.size else PLAYBACK_MIME_TYPES[str(found.facts.playback)]
    derived = Derived(key, expected, stored.sha256, stored.size_bytes, now)
    kept = await parts.db.write(
        lambda tx: store.insert_derived(
            tx,
            agent_id,
            found.row.blob_id,
            wanted.kind,
            derived,
            width=made.width,
            height=made.height,
            now_us=now,
        )
    )
    if kept:
        metrics.previews.labels("thumbnail" if wanted.size else PLAYBACK_KIND).inc()
        return derived
    # Another process was first, or the file is being deleted.
    await _remove(parts, key)
    again = await find_by_link(parts, found.row.uid, wanted)
    if again is None or again.derived is None:
        raise no_preview(wanted)
    return again.derived


async def _keep_none(parts: Parts, found: Found, wanted: Wanted) -> Derived:
    """Note that it cannot be made: nobody tries again, and the file's rows offer it no more."""
    agent_id, blob_id, now = AgentId(found.row.agent_id), found.row.blob_id, parts.clock()
    none = Derived(None, "", "", 0, now)

    async def unit(tx: Tx) -> None:
        # The blob's row first, as everywhere: two units that lock in two orders wait for ever.
        facts = await read_facts(tx, agent_id, blob_id)
        await store.insert_derived(
            tx, agent_id, blob_id, wanted.kind, none, width=None, height=None, now_us=now
        )
        if facts is not None and (less := _without(facts, wanted)) != facts:
            await put_facts(tx, agent_id, blob_id, less, now_us=now)

    await parts.db.write(unit)
    return none


def _without(facts: Facts, wanted: Wanted) -> Facts:
    if wanted.kind == PLAYBACK_KIND:
        return msgspec.structs.replace(facts, playback=None)
    if wanted.kind == thumbnail_kind(ROW_SIZE):
        return msgspec.structs.replace(facts, preview=None)
    return facts


async def _remove(parts: Parts, key: str) -> None:
    try:
        await parts.blobs.delete(key)
    except StorageUnavailable as error:
        log.warning("an object that no row names was left behind: %s: %s", key, error)


Sender = Callable[[ServedRow], Awaitable[None]]


async def serve_derived(parts: Parts, found: Found, wanted: Wanted, send: Sender) -> None:
    """Send a thumbnail or a copy; one whose object was lost behind our back is made once more.

    Args:
        parts: The server's.
        found: The file, which the caller may have.
        wanted: What is asked for.
        send: Answers with a file's bytes; raises before it begins.

    Raises:
        Problem: As `derived_file`, and what `send` raises.
    """
    row = await derived_file(parts, found, wanted)
    try:
        await send(row)
    except Problem as problem:
        if problem.code != "gone":
            raise
        await forget_lost(parts, row, wanted)
        await send(await derived_file(parts, replace(found, derived=None), wanted))
