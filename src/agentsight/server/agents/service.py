"""What can be done with agents and keys, and the check of a presented key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentsight import _contract as contract
from agentsight.server.access import Access
from agentsight.server.accounts import store as accounts
from agentsight.server.accounts.model import clean_name, clean_slug, slug_taken
from agentsight.server.agents import store
from agentsight.server.agents.model import (
    KEY_ROLES,
    Agent,
    Key,
    generate_key,
    key_hint,
    key_sha256,
)
from agentsight.server.db import Database, Tx
from agentsight.server.db.errors import UniqueViolation
from agentsight.server.ids import AgentId, KeyId, new_uid
from agentsight.server.problems import Problem, invalid, not_found, required
from agentsight.server.times import to_text

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
MAX_EXPIRY_DAYS = 36_500
MAX_OVERLAP_HOURS = 24 * 90


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the only moment its text is known.

    Attributes:
        replaced: After a rotation, the old key as it is now.
    """

    text: str
    key: Key
    replaced: Key | None = None


# --- Who is it? -----------------------------------------------------------------------------------


async def authenticate_key(db: Database, presented: str, now_us: int) -> Access | None:
    """Return the access of a key, or None when it is malformed, unknown, revoked or expired."""
    found = await _look_up(db, presented, key_sha256(presented), now_us)
    return None if found is None else found[0]


async def _look_up(
    db: Database, presented: str, sha256: str, now_us: int
) -> tuple[Access, int | None] | None:
    if not contract.key_is_well_formed(presented):
        return None  # a mistyped key costs no look into the database

    async def query(tx: Tx) -> tuple[Access, int | None] | None:
        return await store.find_access(tx, sha256, now_us)

    return await db.read(query)


class KeyCache:
    """Finds who presents a key, and remembers it for at most five seconds.

    One for each process. It keeps hashes, never keys. Refusals are remembered too, apart from the
    rest, so that a flood of unknown keys cannot push the known ones out.

    Args:
        db: The open database.
        clock: Gives the time in µs since 1970 UTC.
        ttl_s: How long an answer is trusted (0 to 5 s): a revoked key must die within 5 s.
        max_entries: How many answers of each kind are kept; the oldest goes first.
    """

    def __init__(
        self, db: Database, clock: Callable[[], int], ttl_s: float = 5, *, max_entries: int = 10_000
    ) -> None:
        if not 0 <= ttl_s <= 5:
            raise ValueError(f"ttl_s must be from 0 to 5 seconds, not {ttl_s}")
        self._db = db
        self._clock = clock
        self._ttl_us = int(ttl_s * 1_000_000)
        self._max_entries = max_entries
        self._known: dict[str, tuple[int, int, Access]] = {}
        self._refused: dict[str, int] = {}

    async def find(self, key: str) -> Access:
        """Return the access of a presented key.

        Raises:
            Problem: 401 `not_authenticated` without a key; 401 `invalid_key`, in the same words,
                for one that is malformed, unknown, revoked or expired.
        """
        if not key:
            raise Problem(
                401, "not_authenticated", "Send your API key as 'Authorization: Api-Key ags_…'."
            )
        now_us = self._clock()
        # A key may hold lone surrogates or be a megabyte long; what has no shape is not hashed.
        if not contract.KEY_PATTERN.fullmatch(key):
            raise _invalid_key()
        sha256 = key_sha256(key)
        entry = self._known.get(sha256)
        if entry is not None and entry[0] <= now_us < entry[1]:
            return entry[2]
        refused_at = self._refused.get(sha256)
        if refused_at is not None and refused_at <= now_us < refused_at + self._ttl_us:
            raise _invalid_key()
        return await self._ask(key, sha256, now_us)

    async def _ask(self, key: str, sha256: str, now_us: int) -> Access:
        found = await _look_up(self._db, key, sha256, now_us)
        self._known.pop(sha256, None)
        self._refused.pop(sha256, None)
        if found is None:
            _make_room(self._refused, self._max_entries)
            self._refused[sha256] = now_us
            raise _invalid_key()
        access, end_us = found
        # Counted from before the question, or a slow database would stretch the five seconds.
        until_us = now_us + self._ttl_us
        _make_room(self._known, self._max_entries)
        self._known[sha256] = (
            now_us,
            until_us if end_us is None else min(until_us, end_us),
            access,
        )
        return access


def _make_room(entries: dict[str, Any], max_entries: int) -> None:
    while len(entries) >= max_entries:
        del entries[next(iter(entries))]


def _invalid_key() -> Problem:
    text = "This API key is not valid here: check for a slip, or ask for a new one."
    return Problem(401, "invalid_key", text)


# --- Agents ---------------------------------------------------------------------------------------


async def create_agent(
    db: Database, access: Access, slug: str, *, client_slug: str, name: str = "", now_us: int
) -> Agent:
    """Make an agent for a client, with the environments `production` and `development`.

    Args:
        slug: Its name on the command line and in addresses; unique in the instance.
        client_slug: Whom it is for.
        name: What people read; the slug when empty.

    Raises:
        Problem: 400 for a slug that is malformed or taken; 404 for a client the caller cannot see.
    """
    slug = clean_slug(slug)
    name = clean_name(name or slug)
    uid = new_uid(now_us)

    async def unit(tx: Tx) -> Agent:
        client = await accounts.find_client(tx, access, client_slug)
        if client is None:
            raise not_found()
        await store.insert_agent(
            tx, access, client_id=client.client_id, slug=slug, name=name, uid=uid, now_us=now_us
        )
        return await require_agent(tx, access, slug)

    try:
        return await db.write(unit)
    except UniqueViolation as error:
        raise slug_taken("agent", slug) from error


async def list_agents(db: Database, access: Access) -> list[Agent]:
    """Return the agents the caller may see, oldest first."""

    async def query(tx: Tx) -> list[Agent]:
        return await store.list_agents(tx, access)

    return await db.read(query)


async def require_agent(tx: Tx, access: Access, slug: str) -> Agent:
    """Return the agent of that slug, or raise the 404 of what the caller may not see."""
    agent = await store.find_agent(tx, access, slug)
    if agent is None:
        raise not_found()
    return agent


# --- Keys -----------------------------------------------------------------------------------------


async def create_key(
    db: Database,
    access: Access,
    agent_slug: str,
    *,
    role: str,
    name: str = "",
    expires_in_days: int | None = None,
    now_us: int,
) -> NewKey:
    """Make a key of an agent; its text is in the answer and nowhere else.

    Args:
        role: `read`, or `write`, which includes it.
        name: What lists show, to tell keys apart.
        expires_in_days: Whole days until it ends; None is never.

    Raises:
        Problem: 404 for an agent the caller cannot see; 400 for a wrong role or number of days.
    """
    if role not in KEY_ROLES:
        raise invalid("role", f"This must be one of: {', '.join(KEY_ROLES)}.")
    text = generate_key()
    name = clean_name(name) if name else ""
    expires_at = _expiry(expires_in_days, now_us)

    async def unit(tx: Tx) -> Key:
        agent = await require_agent(tx, access, agent_slug)
        return await add_key(
            tx, access, agent.agent_id, text, role, name=name, expires_at=expires_at, now_us=now_us
        )

    return NewKey(text, await db.write(unit))


async def add_key(
    tx: Tx,
    access: Access,
    agent_id: AgentId,
    text: str,
    role: str,
    *,
    name: str = "",
    expires_at: int | None = None,
    now_us: int,
) -> Key:
    """Add the key `text` to an agent of the caller's, inside the caller's unit of work."""
    key_id = await store.insert_key(
        tx,
        agent_id,
        uid=new_uid(now_us),
        role=role,
        name=name,
        key_sha256=key_sha256(text),
        hint=key_hint(text),
        now_us=now_us,
        expires_at=expires_at,
    )
    return await _require_key(tx, access, key_id)


def _expiry(expires_in_days: int | None, now_us: int) -> int | None:
    if expires_in_days is None:
        return None
    if not 1 <= expires_in_days <= MAX_EXPIRY_DAYS:
        raise invalid("expires_in_days", f"This must be from 1 to {MAX_EXPIRY_DAYS} days.")
    return now_us + expires_in_days * _DAY_US


async def list_keys(db: Database, access: Access, agent_slug: str | None = None) -> list[Key]:
    """Return the keys of one agent, or of all the caller may see.

    Raises:
        Problem: 404 for an agent the caller cannot see.
    """

    async def query(tx: Tx) -> list[Key]:
        if agent_slug is not None:
            await require_agent(tx, access, agent_slug)
        return await store.list_keys(tx, access, agent_slug or "")

    return await db.read(query)


async def rotate_key(
    db: Database, access: Access, key_id: KeyId, *, overlap_hours: int, now_us: int
) -> NewKey:
    """Make a key like the old one, which goes on working for `overlap_hours` and then ends.

    The new key has the old one's agent, role and name, and lives as long as the old one was meant
    to from its start.

    Raises:
        Problem: 404 for a key the caller cannot see; 400 when it has ended or was rotated already.
    """
    if not 0 <= overlap_hours <= MAX_OVERLAP_HOURS:
        raise invalid("overlap_hours", f"This must be from 0 to {MAX_OVERLAP_HOURS} hours.")
    text = generate_key()

    async def unit(tx: Tx) -> NewKey:
        old = await _require_key(tx, access, key_id)
        if old.state(now_us) != "active":
            raise invalid("key", f"Key {key_id} is {old.state(now_us)}: create a new one.")
        end_us = now_us + overlap_hours * _HOUR_US
        if not await store.rotate_key(tx, access, key_id, end_us=end_us, now_us=now_us):
            raise _rotated_already(await _require_key(tx, access, key_id))
        agent = await require_agent(tx, access, old.agent_slug)
        lifetime = None if old.expires_at is None else old.expires_at - old.created_at
        expires_at = None if lifetime is None else now_us + lifetime
        key = await add_key(
            tx,
            access,
            agent.agent_id,
            text,
            old.role,
            name=old.name,
            expires_at=expires_at,
            now_us=now_us,
        )
        return NewKey(text, key, await _require_key(tx, access, key_id))

    return await db.write(unit)


def _rotated_already(key: Key) -> Problem:
    ends_at = key.ends_at
    end = "" if ends_at is None else f" and ends at {to_text(ends_at - ends_at % 1_000_000)}"
    text = f"Key {key.key_id} was rotated already{end}: rotate its successor, or revoke this one."
    return invalid("key", text)


async def revoke_key(db: Database, access: Access, key_id: KeyId, *, now_us: int) -> Key:
    """End a key now; every process refuses it within five seconds. Twice is no error.

    Raises:
        Problem: 404 for a key the caller cannot see.
    """

    async def unit(tx: Tx) -> Key:
        await _require_key(tx, access, key_id)
        await store.end_key(tx, access, key_id, end_us=now_us, now_us=now_us)
        return await _require_key(tx, access, key_id)

    return await db.write(unit)


async def find_key_id(db: Database, access: Access, presented: str) -> KeyId:
    """Return the id of the key meant by an id, or by the key itself.

    Raises:
        Problem: 404 for a key the caller cannot see; 400 for text that is neither.
    """
    if not presented:
        raise required("key")
    if presented.isascii() and presented.isdigit():
        return KeyId(min(int(presented[:18]), contract.MAX_ROW_ID))
    if not contract.key_is_well_formed(presented):
        raise invalid("key", "This must be a key's number (see `keys list`) or the key itself.")
    sha256 = key_sha256(presented)

    async def query(tx: Tx) -> KeyId:
        key_id = await store.find_key_id(tx, access, sha256)
        if key_id is None:
            raise not_found()
        return key_id

    return await db.read(query)


async def _require_key(tx: Tx, access: Access, key_id: KeyId) -> Key:
    key = await store.find_key(tx, access, key_id)
    if key is None:
        raise not_found()
    return key
