"""Is it alive, is it ready, what has it done: asked by supervisors, balancers and Prometheus.

Without a key: nothing here tells of anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

import msgspec
from litestar import MediaType, Request, Response, get

from agentsight.server import metrics

Check = Callable[[], Awaitable[None]]
Gauges = Callable[[], Awaitable[Iterable[metrics.Gauge]]]


class HealthShape(msgspec.Struct):
    """The state, and for readiness what each part answered."""

    status: str
    checks: dict[str, str] = msgspec.field(default_factory=dict[str, str])


@get("/healthz", tags=["operation"], summary="Alive")
async def healthz() -> HealthShape:
    """Say that the process answers; nothing else is asked."""
    return HealthShape("ok")


@get("/readyz", tags=["operation"], summary="Ready")
async def readyz(request: Request[Any, Any, Any]) -> Response[HealthShape]:
    """Say whether database and store answer and belong together; 503 while they do not."""
    checks = cast("Mapping[str, Check]", request.app.state.checks)
    answers: dict[str, str] = {}
    for name, check in checks.items():
        try:
            await check()
            answers[name] = "ok"
        except Exception as error:  # noqa: BLE001 # the edge: whatever is wrong is what is asked
            answers[name] = type(error).__name__
    is_ready = all(answer == "ok" for answer in answers.values())
    shape = HealthShape("ok" if is_ready else "unavailable", answers)
    return Response(shape, status_code=200 if is_ready else 503)


@get("/metrics", tags=["operation"], summary="Counters", media_type=MediaType.TEXT)
async def show_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Show what has been counted since the start, of all workers, in Prometheus' text format."""
    read_gauges = cast("Gauges", request.app.state.gauges)
    body = await asyncio.to_thread(metrics.exposition, await read_gauges())
    return Response(body, media_type=metrics.CONTENT_TYPE)


routes = [healthz, readyz, show_metrics]
