"""The three questions of an orchestrator, each with an answer of its own.

/startup: is it over? /live: must the process be restarted? /ready: should requests come here?
Nothing listens before the model is loaded and warmed up, so all three are refused until then.
"""

from __future__ import annotations

from aiohttp import web

from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.service import SERVICE, Service


async def startup(_request: web.Request) -> web.Response:
    """GET /startup: whoever can ask is answered by a server that has started."""
    return web.Response(text="started\n")


async def live(_request: web.Request) -> web.Response:
    """GET /live: the event loop turns. Nothing of the shards is asked: a long step, a drain or a
    shard that is looked after by the launcher is no reason to kill the container."""
    return web.Response(text="live\n")


async def ready(request: web.Request) -> web.Response:
    """GET /ready: 503 with the reason while the server is about to end, a shard does not answer, or
    a step takes far longer than it should."""
    if reason := unready(request.app[SERVICE]):
        raise ApiError(Kind.UNHEALTHY, f": {reason}")
    return web.Response(text="ready\n")


def unready(service: Service) -> str:
    """Why requests should not come here; empty: they may. That somebody looks is noted: the server
    does not end before they have heard of it (`server`)."""
    service.metrics.on_look()
    engine = service.engine
    return engine.trouble or ("the server is shutting down" if engine.withdrawn else "")


def unhealthy(service: Service) -> ApiError:
    """TGI's answer, which gives no reason of a shutdown."""
    trouble = service.engine.trouble
    return ApiError(Kind.UNHEALTHY, f": {trouble}" if trouble else "")
