"""What a door finds in a request besides its data: the joined parts, and its own address."""

from __future__ import annotations

from typing import Any, cast

from litestar.connection import ASGIConnection

from agentsight.server.parts import Parts
from agentsight.server.web.bases import Bases

Connection = ASGIConnection[Any, Any, Any, Any]


def parts_of(connection: Connection) -> Parts:
    """Return the parts of this process."""
    return cast("Parts", connection.app.state.parts)


def bases_of(connection: Connection) -> Bases:
    """Return what finds this server's own address."""
    return cast("Bases", connection.app.state.bases)
