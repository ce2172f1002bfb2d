"""Runs sequences and streams what they generate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import web

from penstock_router.api.call import Call
from penstock_router.api.errors import ApiError
from penstock_router.api.run import Run, Track
from penstock_router.api.sse import EventStream, SlowReader


async def stream_out(
    call: Call,
    stream: EventStream,
    tracks: Sequence[Track],
    *,
    seed: int | None,
    last_events: Callable[[], bytes],
    error_event: Callable[[ApiError], bytes],
) -> web.StreamResponse:
    """Stream until all tracks have ended.

    An error before the first event is raised; after it, it becomes the last event.
    """
    try:
        with Run(call.service.engine) as run:
            run.submit(tracks)
            await stream.serve(run)
        call.succeed(tracks, seed)
        if events := last_events():
            stream.push(events)
        await stream.close()
    except ApiError as error:
        if not stream.started:
            raise
        call.fail(error)
        stream.push(error_event(error))
        await stream.close()
    except SlowReader:
        call.service.metrics.on_slow_reader()
        call.drop("slow reader")
        return stream.abort()
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        if not stream.started:
            raise
        call.broke()
        return stream.abort()
    return stream.response


async def collect(call: Call, tracks: Sequence[Track]) -> None:
    """Run all tracks to their ends. Raises ApiError."""
    with Run(call.service.engine) as run:
        run.submit(tracks)
        await run.ended
