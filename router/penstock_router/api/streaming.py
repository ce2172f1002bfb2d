"""Runs sequences and streams what they generate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from aiohttp import web

from penstock_router.api.call import Call
from penstock_router.api.errors import ApiError
from penstock_router.api.run import Run, Track
from penstock_router.api.sse import EventStream, SlowReader

T = TypeVar("T", bound=Track)
# Hands tracks to the engine, before or while the block runs that waits for their ends.
Submitting = Callable[[Run, Sequence[T]], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def at_once(run: Run, tracks: Sequence[Track]) -> AsyncIterator[None]:
    """All of them, now."""
    run.submit(tracks)
    yield


async def stream_out(
    call: Call,
    stream: EventStream,
    tracks: Sequence[T],
    *,
    seed: int | None,
    last_events: Callable[[], bytes],
    error_event: Callable[[ApiError], bytes],
    submitting: Submitting[T] = at_once,
) -> web.StreamResponse:
    """Stream until all tracks have ended.

    An error before the first event is raised; after it, it becomes the last event.
    """
    try:
        with call.limit.converting(), Run(call.service.engine, call.lease) as run:
            async with submitting(run, tracks):
                await stream.serve(run)
        call.succeed(tracks, seed)
        if events := last_events():
            stream.push(events)
        await stream.close()
    except ApiError as error:
        if not stream.started:
            raise
        await end_with(call, stream, error, error_event)
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


async def end_with(
    call: Call, stream: EventStream, error: ApiError, error_event: Callable[[ApiError], bytes]
) -> web.StreamResponse:
    """The end of a stream that has begun: its status cannot say what was wrong."""
    call.fail(error)
    stream.push(error_event(error))
    await stream.close()
    return stream.response


async def collect(call: Call, tracks: Sequence[T], submitting: Submitting[T] = at_once) -> None:
    """Run all tracks to their ends. Raises ApiError."""
    with Run(call.service.engine, call.lease) as run:
        async with submitting(run, tracks):
            await run.ended
