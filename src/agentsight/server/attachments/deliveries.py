"""How a file is handed out to who opens its link, which is checked here, or asks with a key.

The doors to files and to what was made of them share it; `serving.py` sends the bytes.
"""

from __future__ import annotations

import re
from dataclasses import replace

from agentsight.server import metrics
from agentsight.server.access import link_access
from agentsight.server.attachments.model import ServedRow
from agentsight.server.attachments.refusals import refusal_of
from agentsight.server.attachments.serving import Delivery, cache_control
from agentsight.server.ids import AgentId
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem

_LINK = re.compile(r"/files/([0-9a-f-]{36})/([^/]{1,100})/(.*)", re.DOTALL)


def link_refused(reason: str = "invalid") -> Problem:
    """Make the answer for every link that does not work; it tells nothing more.

    Args:
        reason: For the counter alone.
    """
    metrics.links_refused.labels(reason).inc()
    return Problem(404, "link_invalid", "This link is not valid, or its file is gone.")


def split_link(parts: Parts, path: str) -> tuple[str, str, str]:
    """Cut a link's path into uid, token and what follows; what it names is still to be checked.

    Raises:
        Problem: 404 for what is malformed or has expired: the database need not be asked.
    """
    found = _LINK.fullmatch(path)
    if found is None:
        raise link_refused()
    uid, token, rest = found.groups()
    if parts.links.expires_at_us(token, parts.clock()) is None:
        was_right = parts.links.expires_at_us(token, 0) is not None
        raise link_refused("expired" if was_right else "invalid")
    return uid, token, rest


def link_delivery(
    parts: Parts, row: ServedRow, token: str, name: str, *, now_us: int, action: str = "open"
) -> Delivery:
    """Check a link to a file against the file's row, and say how it is handed out.

    It is noted in the audit log.

    Args:
        parts: The server's.
        row: What the link's uid names.
        token: The link's middle part.
        name: The file name in the link; for what was made of a file, the row's own.
        now_us: The time.
        action: What the audit log calls it: `open` or `preview`.

    Raises:
        Problem: 404 for a link that was altered or has expired, and for a file that is deleted;
            403 for one that is infected or blocked.
    """
    expires_at = parts.links.verify(
        token,
        name,
        agent_id=row.agent_id,
        attachment_uid=row.uid,
        filename=row.filename,
        now_us=now_us,
    )
    if expires_at is None:
        raise link_refused()
    if row.is_deleted:
        raise link_refused("deleted")
    refusal = refusal_of(row)
    if refusal is not None:
        metrics.links_refused.labels(refusal.code).inc()
        raise refusal
    parts.audit.read(link_access(AgentId(row.agent_id)), action, "attachment", row.uid)
    is_public = parts.settings.files_cache == "public"
    return _delivery(parts, cache_control(expires_at, now_us, is_public=is_public))


def key_delivery(parts: Parts) -> Delivery:
    """Say how a file is handed out to who asks with a key."""
    return replace(_delivery(parts, "private, no-cache"), resource_policy="same-origin")


def _delivery(parts: Parts, cache: str) -> Delivery:
    # With files on an origin of their own, our pages are a stranger to them unless named.
    pages = (parts.settings.public_url,) if parts.settings.public_url else ()
    return Delivery(
        cache,
        accel_prefix=parts.settings.x_accel_redirect,
        frame_ancestors=pages,
        redirects=parts.settings.downloads == "redirect",
    )
