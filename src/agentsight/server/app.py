"""Where the parts are joined: `create_app(settings)` makes the ASGI application.

The application opens the database and the store when its lifespan begins and closes them when it
ends. The schema is made or migrated before (`agentsight serve`, `agentsight migrate`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncGenerator
from typing import Any

from litestar import Litestar, Router
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from agentsight.server import metrics
from agentsight.server.agents.service import KeyCache
from agentsight.server.archives import api as archives_api
from agentsight.server.attachments import api as attachments_api
from agentsight.server.attachments import api_lists as attachment_lists_api
from agentsight.server.attachments import store_names
from agentsight.server.attachments.copying import PAUSE_S as COPY_PAUSE_S
from agentsight.server.attachments.copying import copy_step
from agentsight.server.attachments.store_jobs import MAX_COUNTED, count_waiting
from agentsight.server.audits.trail import FLUSH_PAUSE_S
from agentsight.server.background import Chore, running
from agentsight.server.blobs import StorageUnavailable
from agentsight.server.conversations import api as conversations_api
from agentsight.server.conversations import api_v1 as conversations_v1_api
from agentsight.server.dashboard.pages import page_routes
from agentsight.server.dashboard.reference import reference_routes
from agentsight.server.db import Database
from agentsight.server.db.errors import DatabaseError
from agentsight.server.doctor import api as doctor_api
from agentsight.server.doctor.probe import Probes
from agentsight.server.front_door import FrontDoor
from agentsight.server.ingest import api as ingest_api
from agentsight.server.ingest import batch as batch_api
from agentsight.server.instance.service import check_instance
from agentsight.server.instance.signing import signing_keys
from agentsight.server.messages import store_search as message_search
from agentsight.server.opening import open_parts
from agentsight.server.parts import Clock, Parts, wall_clock
from agentsight.server.previews import api as previews_api
from agentsight.server.previews.examining import PAUSE_S as EXAMINE_PAUSE_S
from agentsight.server.previews.examining import examine_step
from agentsight.server.problems import not_found
from agentsight.server.removals import api as removals_api
from agentsight.server.removals.service_chores import (
    WALK_PAUSE_S,
    Collector,
    grace_step,
    removals_step,
    retention_step,
)
from agentsight.server.removals.service_scrubs import PAUSE_S as SCRUB_PAUSE_S
from agentsight.server.removals.service_scrubs import scrub_step
from agentsight.server.scans.service import AT_ONCE as SCANS_AT_ONCE
from agentsight.server.scans.service import PAUSE_S as SCAN_PAUSE_S
from agentsight.server.scans.service import scan_step
from agentsight.server.sdk_index import sdk_routes
from agentsight.server.settings import Settings, load_settings
from agentsight.server.uploads import api as uploads_api
from agentsight.server.uploads.service import expire_step
from agentsight.server.uploads.store import begun_keys
from agentsight.server.web import health
from agentsight.server.web.bases import Bases
from agentsight.server.web.bodies import BodyBudget, JsonRequest
from agentsight.server.web.errors import answer_error

log = logging.getLogger("agentsight.server")
_DAY_S = 24 * 3600

ROUTES = [
    *archives_api.routes,
    *attachment_lists_api.routes,
    *attachments_api.routes,
    *batch_api.routes,
    *conversations_api.routes,
    *conversations_v1_api.routes,
    *doctor_api.routes,
    *health.routes,
    *ingest_api.routes,
    *page_routes,
    *previews_api.routes,
    *reference_routes,
    *removals_api.routes,
    *sdk_routes,
    *uploads_api.routes,
]


async def _index_messages(parts: Parts) -> int:
    return await message_search.index_step(parts.db)


async def _index_names(parts: Parts) -> int:
    return await store_names.index_step(parts.db, parts.clock())


async def _write_audit(parts: Parts) -> int:
    await parts.audit.flush(parts.db, parts.clock())
    return 0


CHORES = [
    Chore("the search index", _index_messages, 1.0),
    Chore("the search index of names", _index_names, 5.0),
    Chore("uploads that have expired", expire_step, 30.0),
    Chore("the audit log", _write_audit, FLUSH_PAUSE_S),
    *[Chore("malware scans", scan_step, SCAN_PAUSE_S)] * SCANS_AT_ONCE,
    Chore("looking at files", examine_step, EXAMINE_PAUSE_S),
    Chore("what files show", copy_step, COPY_PAUSE_S),
    Chore("erasures", removals_step, 2.0),
    Chore("contents that nothing needs", Collector().step, WALK_PAUSE_S),
    Chore("what such contents leave behind", scrub_step, SCRUB_PAUSE_S),
    Chore("the grace period", grace_step, 60.0),
    Chore("retention", retention_step, 60.0),
]


async def _sweep(parts: Parts) -> None:
    """Remove what interrupted uploads left, in the store's threads, if no row will go on with it:
    the settings of today may be shorter than those that its time was promised by."""
    now, age_s = parts.clock(), parts.settings.leftover_age_s()
    begun = await parts.db.read(lambda tx: begun_keys(tx, now), slow=True)
    try:
        n_removed = await parts.blobs.sweep(older_than_s=age_s, besides=begun)
    except StorageUnavailable as error:  # /readyz tells of it
        log.warning("leftovers of interrupted uploads were not removed: %s", error)
        return
    if n_removed:
        log.info("removed what interrupted uploads left: %s files", n_removed)


def create_app(settings: Settings, *, clock: Clock = wall_clock) -> FrontDoor:
    """Make the application.

    Args:
        settings: From `load_settings`.
        clock: The time in µs since 1970 UTC; tests bring their own.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        async with open_parts(settings, clock=clock) as parts:
            app.state.parts = parts
            app.state.instance_uid = await check_instance(parts.db, parts.blobs)
            app.state.probes = Probes(
                await signing_keys(parts.db, settings.secret_key, now_us=clock())
            )
            app.state.key_finder = KeyCache(parts.db, clock, settings.key_cache_s)
            app.state.checks = {
                "database": lambda: _check_database(parts.db),
                "storage": parts.blobs.check,
                "instance": lambda: _check_instance(app),
            }
            app.state.gauges = lambda: _read_gauges(parts)
            await _sweep(parts)
            try:
                async with running(parts, CHORES):
                    yield
            finally:
                await _write_last_audit(parts)

    app = Litestar(
        ROUTES,
        lifespan=[lifespan],
        request_class=JsonRequest,
        exception_handlers={Exception: answer_error},
        openapi_config=_openapi(),
        request_max_body_size=None,
        logging_config=None,
        debug=False,
    )
    app.state.body_budget = BodyBudget(
        settings.max_json_in_flight_bytes, settings.max_json_body_bytes
    )
    app.state.bases = Bases(
        settings.public_url,
        settings.files_url,
        settings.allowed_hosts,
        settings.trusted_networks(),
    )
    return FrontDoor(app)


async def _check_database(db: Database) -> None:
    from agentsight.server.db.migrate import schema_version

    await schema_version(db)


async def _read_gauges(parts: Parts) -> list[metrics.Gauge]:
    """Read the numbers that only the database knows; none while it is away."""
    try:
        waiting = await parts.db.read(count_waiting, slow=True)
    except DatabaseError:
        return []
    text = f"Files waiting for background work; counted up to {MAX_COUNTED}."
    return [("blob_jobs_waiting", text, "kind", waiting)]


async def _write_last_audit(parts: Parts) -> None:
    try:
        await parts.audit.flush(parts.db, parts.clock(), is_last=True)
    except DatabaseError as error:
        log.error("the last reads are not in the audit log: %s", error)


async def _check_instance(app: Litestar) -> None:
    parts: Parts = app.state.parts
    await check_instance(parts.db, parts.blobs)


def _nobody(_connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    raise not_found()


def _openapi() -> OpenAPIConfig:
    scheme = SecurityScheme(
        type="apiKey",
        name="Authorization",
        security_scheme_in="header",
        description="`Api-Key ags_…`",
    )
    return OpenAPIConfig(
        title="AgentSight",
        version="1",
        description="Keeps the conversations of AI agents and the files in them.",
        # Our own pages show it (dashboard/reference.py); the framework's ask a CDN for scripts. It
        # makes all of them where the list is empty, and one at least: nobody gets in there.
        openapi_router=Router(
            "/app/openapi", route_handlers=[], include_in_schema=False, guards=[_nobody]
        ),
        render_plugins=[JsonRenderPlugin()],
        components=Components(security_schemes={"ApiKey": scheme}),
        security=[{"ApiKey": []}],
        use_handler_docstrings=True,
    )


def app_from_environment() -> FrontDoor:
    """Make the application from `AGENTSIGHT_*` variables: what uvicorn calls in each worker."""
    return create_app(load_settings(os.environ))
