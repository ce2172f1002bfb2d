"""Puts the API together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from penstock_router.api.batch_routes import BATCH_ROUTES, UPLOADS, add_store
from penstock_router.api.bodies import Bodies
from penstock_router.api.clients import Clients
from penstock_router.api.connection import note_answer, say_goodbye
from penstock_router.api.connections import Connections, Waits
from penstock_router.api.guard import Origins, finish_headers, middleware
from penstock_router.api.interface import Engine, Metrics
from penstock_router.api.keys import KEYS, Keys
from penstock_router.api.openapi import docs_routes
from penstock_router.api.platform_routes import with_platform_routes
from penstock_router.api.quota import Ledger, NearLedger
from penstock_router.api.routes import ROUTES
from penstock_router.api.sampling_defaults import sampling_defaults
from penstock_router.api.service import SERVICE, Permits, Service
from penstock_router.api.turns import Turns
from penstock_router.batches.store import Store
from penstock_router.config import RouterConfig
from penstock_router.exposition import CONTENT_TYPE
from penstock_router.quotas import Quotas
from penstock_router.text import TextModel

if TYPE_CHECKING:
    from penstock_router.traces import Traces

FLUSH_SECONDS = 2.0  # for the last bytes of answers that have ended, when the server ends
READ_BYTES = 64 * 1024  # of a body that nobody reads yet; twice as many may wait
SCRAPERS = 64  # connections of one client to the port for /metrics alone


def make_app(
    config: RouterConfig,
    engine: Engine,
    text: TextModel,
    metrics: Metrics,
    permits: Permits | None = None,
    ledger: Ledger | None = None,
) -> web.Application:
    """The application with all routes. `make_runner` runs it.

    permits, ledger: those of all processes, where several serve HTTP.
    """
    listed = with_platform_routes(ROUTES, config.predict_route, config.health_route)
    store = _store(config)
    if store is not None:
        listed = (*listed, *BATCH_ROUTES)
    routes = (*listed, *docs_routes(listed, config.root_path, keyed=bool(config.api_key)))
    origins = Origins(config.cors_allow_origin)
    keys = Keys(config.keys, {(r.method, r.path) for r in routes if r.public})
    ledger = ledger or NearLedger(Quotas(config.keys))
    guard = middleware(origins, keys, ledger, config.payload_limit, UPLOADS)
    app = web.Application(
        middlewares=[guard]  # type: ignore[list-item]
    )
    if store is not None:
        add_store(app, store)
    app[KEYS] = keys
    permits = permits or Permits(config.max_concurrent_requests)
    clients = Clients(config.trusted_proxies, _share(config, config.max_requests_per_client))
    bodies, defaults = Bodies(config.payload_limit), sampling_defaults(config)
    turns, traces = Turns(permits), _traces(config)
    app[SERVICE] = Service(
        config, engine, text, metrics, permits, turns, clients, bodies, defaults, traces
    )
    if traces is not None:
        app.on_cleanup.append(lambda app: asyncio.to_thread(traces.close))
    app.on_response_prepare.append(finish_headers(origins))
    app.on_response_prepare.append(note_answer)
    app.on_response_prepare.append(say_goodbye)
    for route in routes:
        app.router.add_route(route.method, route.path, route.handler)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, route.handler)
    return app


def _store(config: RouterConfig) -> Store | None:
    """Raises OSError where the folder cannot be made."""
    if config.batch_folder is None:
        return None
    return Store(Path(config.batch_folder), config.batch_storage_limit)


def _traces(config: RouterConfig) -> Traces | None:
    if config.otlp_endpoint is None:
        return None
    from penstock_router.traces import Traces  # its libraries are an extra

    return Traces(config.otlp_endpoint, config.otlp_protocol, config.otlp_service_name)


class Runner(web.AppRunner):
    """Runs an application on connections of ours."""

    def __init__(
        self,
        app: web.Application,
        clients: Clients,
        metrics: Metrics,
        most_of_client: int,
        waits: Waits,
        root_path: str = "",
        **parser: Any,
    ) -> None:
        """Handlers end with their client, and compressed bodies stay packed. parser: aiohttp's
        bounds of heads."""
        super().__init__(
            app,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=waits.idle,
            lingering_time=0,  # our connections see to that
            read_bufsize=READ_BYTES,
            shutdown_timeout=FLUSH_SECONDS,
            **parser,
        )
        self._connections = clients, metrics, most_of_client, waits, root_path

    async def cleanup(self) -> None:
        """End, when requests that are on their way have their answers."""
        if isinstance(self.server, Connections):
            await self.server.hear_out()
        await super().cleanup()

    async def _make_server(self) -> web.Server:
        return Connections(await super()._make_server(), *self._connections)


def make_runner(app: web.Application) -> web.AppRunner:
    """Runs what `make_app` made."""
    service = app[SERVICE]
    config = service.config
    most = _share(config, config.max_connections_per_client)
    return Runner(
        app,
        service.clients,
        service.metrics,
        most,
        Waits(config.header_timeout, config.idle_timeout),
        config.root_path,
        max_headers=config.max_headers,
        max_line_size=config.max_header_size,
        max_field_size=config.max_header_size,
    )


def make_scrape_runner(metrics: Metrics) -> web.AppRunner:
    """Runs an application that serves /metrics, and nothing else."""

    async def scrape(request: web.Request) -> web.Response:
        return web.Response(body=await metrics.scrape(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", scrape)
    app.on_response_prepare.append(finish_headers(Origins(())))
    return Runner(app, Clients((), 0), metrics, SCRAPERS, Waits())


def _share(config: RouterConfig, most: int) -> int:
    """Of a bound for one client: connections are dealt out to the processes in turn."""
    return -(-most // max(1, config.http_processes))
