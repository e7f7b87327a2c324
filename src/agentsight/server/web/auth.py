"""Who is asking: the guards that every API route carries.

A guard runs before the body is read, so that a stranger cannot make us read a gigabyte.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from agentsight.server.access import Access, Permission
from agentsight.server.problems import Problem

_ACCESS = "agentsight.access"
_SCHEMES = ("api-key", "bearer")


class KeyFinder(Protocol):
    """Turns a presented key into an access (see `agents/service.py`)."""

    async def find(self, key: str) -> Access:
        """Return the key's access, or raise a 401 Problem."""
        ...


def presented_key(header: str | None) -> str:
    """Take the key out of an `Authorization: Api-Key …` (or `Bearer …`) header.

    Raises:
        Problem: 401 `not_authenticated` when there is none.
    """
    scheme, _, key = (header or "").strip().partition(" ")
    if scheme.lower() not in _SCHEMES or not key.strip():
        text = "Send your API key as 'Authorization: Api-Key ags_…'."
        raise Problem(401, "not_authenticated", text)
    return key.strip()


async def authenticate(header: str | None, keys: KeyFinder, permission: Permission) -> Access:
    """Find who presents the header's key and make sure they may do this.

    Raises:
        Problem: 401 without a valid key; 403 when the key's role does not allow it.
    """
    access = await keys.find(presented_key(header))
    if not access.may(permission):
        role = str(permission.name).lower()
        text = f"This key's role does not allow it: a key of the role '{role}' is needed."
        raise Problem(403, "permission_denied", text)
    return access


async def _guard(connection: ASGIConnection[Any, Any, Any, Any], permission: Permission) -> None:
    keys = cast("KeyFinder", connection.app.state.key_finder)
    header = connection.headers.get("authorization")
    connection.scope[_ACCESS] = await authenticate(header, keys, permission)  # pyright: ignore[reportGeneralTypeIssues] # an ASGI scope is an open dict


async def reads(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Guard of routes that read."""
    await _guard(connection, Permission.READ)


async def writes(
    connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler
) -> None:
    """Guard of routes that write."""
    await _guard(connection, Permission.WRITE)


def access_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Access:
    """Return the access that the route's guard has found."""
    return cast("Access", cast("dict[str, Any]", connection.scope)[_ACCESS])
