"""The door that probes of `agentsight doctor` come to. It serves the doctor of the same version."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from litestar import Request, get, post

import agentsight
from agentsight.server.doctor.probe import MAX_BODY_BYTES, Probes
from agentsight.server.problems import Problem, too_large
from agentsight.server.request_context import bases_of, parts_of
from agentsight.server.web.bodies import receive_chunks

PROBE_PATH = "/api/v1/probe/"


class ProbeShape(msgspec.Struct, kw_only=True):
    """How the server is set up, and how it saw the request."""

    instance: str
    version: str
    now_us: int
    base: str
    files_base: str
    has_public_url: bool
    peer: str
    is_peer_trusted: bool
    n_bytes: int = 0


def _require_probe(request: Request[Any, Any, Any]) -> None:
    probes = cast("Probes", request.app.state.probes)
    if not probes.is_valid(request.headers.get("authorization"), parts_of(request).clock()):
        raise Problem(401, "not_authenticated", "This door is for agentsight doctor.")


def _shape(request: Request[Any, Any, Any], n_bytes: int) -> ProbeShape:
    bases = bases_of(request)
    peer = request.client.host if request.client else ""
    return ProbeShape(
        instance=request.app.state.instance_uid,
        version=agentsight.__version__,
        now_us=parts_of(request).clock(),
        base=bases.public_base(request.scope),
        files_base=bases.files_base(request.scope),
        has_public_url=bases.public_url is not None,
        peer=peer,
        is_peer_trusted=bases.is_trusted(peer),
        n_bytes=n_bytes,
    )


@get(PROBE_PATH, include_in_schema=False)
async def answer_probe(request: Request[Any, Any, Any]) -> ProbeShape:
    """Say who this is and how the request arrived."""
    _require_probe(request)
    return _shape(request, 0)


@post(PROBE_PATH, include_in_schema=False, status_code=200)
async def swallow_probe(request: Request[Any, Any, Any]) -> ProbeShape:
    """Count a body and throw it away: which sizes get through whatever stands before the server."""
    _require_probe(request)
    n_bytes = 0
    async for chunk in receive_chunks(request.receive):
        n_bytes += len(chunk)
        if n_bytes > MAX_BODY_BYTES:
            raise too_large(f"A probe may have at most {MAX_BODY_BYTES} bytes.")
    return _shape(request, n_bytes)


routes = [answer_probe, swallow_probe]
