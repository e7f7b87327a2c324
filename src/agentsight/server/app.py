"""Where the parts are joined: `create_app(settings)` makes the ASGI application.

The application opens the database and the store when its lifespan begins and closes them when it
ends. The schema is made or migrated before (`agentsight serve`, `agentsight migrate`).
"""

from __future__ import annotations

import asyncio
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

from agentsight.server.agents.service import KeyCache
from agentsight.server.attachments import api as attachments_api
from agentsight.server.attachments.links import Links
from agentsight.server.blobs import LEFTOVER_AGE_S, BlobStore, StorageUnavailable
from agentsight.server.blobs.opening import open_blob_store
from agentsight.server.conversations import api as conversations_api
from agentsight.server.dashboard.pages import page_routes
from agentsight.server.dashboard.reference import reference_routes
from agentsight.server.db import Database, open_database
from agentsight.server.db.errors import DatabaseError
from agentsight.server.doctor import api as doctor_api
from agentsight.server.doctor.probe import Probes
from agentsight.server.front_door import FrontDoor
from agentsight.server.ingest import api as ingest_api
from agentsight.server.ingest import batch as batch_api
from agentsight.server.instance.service import check_instance
from agentsight.server.instance.signing import signing_keys
from agentsight.server.messages.store_search import index_step
from agentsight.server.parts import Clock, Parts, wall_clock
from agentsight.server.problems import not_found
from agentsight.server.sdk_index import sdk_routes
from agentsight.server.settings import Settings, load_settings
from agentsight.server.web import health
from agentsight.server.web.bases import Bases
from agentsight.server.web.bodies import BodyBudget, JsonRequest
from agentsight.server.web.errors import answer_error

log = logging.getLogger("agentsight.server")
_DAY_S = 24 * 3600
_INDEX_PAUSE_S = 1.0

ROUTES = [
    *attachments_api.routes,
    *batch_api.routes,
    *conversations_api.routes,
    *doctor_api.routes,
    *health.routes,
    *ingest_api.routes,
    *page_routes,
    *reference_routes,
    *sdk_routes,
]


async def _index_for_ever(db: Database) -> None:
    """Move new messages into the search index, in steps, for as long as the server runs."""
    while True:
        try:
            n_moved = await index_step(db)
        except DatabaseError as error:
            log.warning("the search index waits for the database: %s", error)
            n_moved = 0
        await asyncio.sleep(0.01 if n_moved else _INDEX_PAUSE_S)


async def _sweep(blobs: BlobStore) -> None:
    """Remove what interrupted uploads left, in the store's threads."""
    try:
        n_removed = await blobs.sweep(older_than_s=LEFTOVER_AGE_S)
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
        db = await open_database(settings.database_url, pool_size=settings.database_pool_size)
        blobs = open_blob_store(settings.storage_url)
        try:
            app.state.instance_uid = await check_instance(db, blobs)
            keys = await signing_keys(db, settings.secret_key, now_us=clock())
            links = Links(keys, lifetime_s=settings.link_lifetime_days * _DAY_S)
            app.state.parts = Parts(settings, db, blobs, links, clock)
            app.state.probes = Probes(keys)
            app.state.key_finder = KeyCache(db, clock, settings.key_cache_s)
            app.state.checks = {
                "database": lambda: _check_database(db),
                "storage": blobs.check,
                "instance": lambda: _check_instance(app),
            }
            await _sweep(blobs)
            indexing = asyncio.create_task(_index_for_ever(db))
            yield
            indexing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await indexing
        finally:
            await blobs.close()
            await db.close()

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
