"""The routes that anybody may ask, in one list for every test that walks the routes."""

from __future__ import annotations

import re

OPEN_ROUTES = frozenset(
    {
        "/",
        "/app",
        "/app/set-password/{}",
        "/app/style.css",
        "/docs",
        "/files/{}/{}/playback/{}",
        "/files/{}/{}/preview/{}",
        "/files/{}/{}/{}",
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/readyz",
        "/sdk",
        "/sdk/{}",
        "/sdk/{}/{}",
    }
)
"""Pages, health, the description, the SDK, and links, which carry a signature. Each says for itself
what it tells, and no row is named without a secret. A new route that is not here asks for a key.
"""
READ_BY_WRITERS = frozenset({"/api/v1/uploads/{}"})
"""Who may only bring files in must see how far theirs have come: GET and HEAD ask for `writes`."""
PROBE_ROUTE = "/api/v1/probe"
"""Asks for a secret of its own: the doctor's, who reads it in the database."""


def bare_path(path: str) -> str:
    """Return a route's path with `{}` for its parameters and without a slash at its end."""
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/") or "/"
