"""What the links of one answer begin with."""

from __future__ import annotations

from dataclasses import dataclass

from agentsight.server.request_context import Connection, bases_of, parts_of


@dataclass(frozen=True, slots=True)
class Addresses:
    """The bases of one answer's links, and the time they count from (µs since 1970 UTC).

    `has_previews`: whether this server makes previews at all.
    """

    api_base: str
    files_base: str
    now_us: int
    has_previews: bool


def addresses_of(connection: Connection) -> Addresses:
    """Return the bases of links that work for who asks."""
    bases = bases_of(connection)
    parts = parts_of(connection)
    api_base = bases.public_base(connection.scope)
    return Addresses(api_base, bases.files_url or api_base, parts.clock(), parts.settings.examine)
