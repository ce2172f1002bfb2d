"""Runs sequences and streams what they generate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from aiohttp import web

from penstock_router.api.errors import ApiError
from penstock_router.api.request_context import RequestContext
from penstock_router.api.sequence_group import SequenceGroup, SequenceListener
from penstock_router.api.sse import EventStream, SlowReader

T = TypeVar("T", bound=SequenceListener)
# Hands listeners to the engine, before or while the block runs that waits for their ends.
Submitting = Callable[[SequenceGroup, Sequence[T]], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def at_once(
    group: SequenceGroup, listeners: Sequence[SequenceListener]
) -> AsyncIterator[None]:
    """All of them, now."""
    group.submit(listeners)
    yield


async def stream_out(
    context: RequestContext,
    stream: EventStream,
    listeners: Sequence[T],
    *,
    seed: int | None,
    last_events: Callable[[], bytes],
    error_event: Callable[[ApiError], bytes],
    submitting: Submitting[T] = at_once,
) -> web.StreamResponse:
    """Stream until all listeners have ended.

    An error before the first event is raised; after it, it becomes the last event.
    """
    try:
        with (
            context.limit.converting(),
            _group(context) as group,
        ):
            async with submitting(group, listeners):
                await stream.serve(group)
        context.succeed(listeners, seed)
        if events := last_events():
            stream.push(events)
        await stream.close()
    except ApiError as error:
        if not stream.started:
            raise
        await end_with(context, stream, error, error_event)
    except SlowReader:
        context.service.metrics.on_slow_reader()
        context.drop("slow reader")
        return stream.abort()
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        if not stream.started:
            raise
        context.broke()
        return stream.abort()
    return stream.response


async def end_with(
    context: RequestContext,
    stream: EventStream,
    error: ApiError,
    error_event: Callable[[ApiError], bytes],
) -> web.StreamResponse:
    """The end of a stream that has begun: its status cannot say what was wrong."""
    context.fail(error)
    stream.push(error_event(error))
    await stream.close()
    return stream.response


async def collect(
    context: RequestContext, listeners: Sequence[T], submitting: Submitting[T] = at_once
) -> None:
    """Run all listeners to their ends. Raises ApiError."""
    with _group(context) as group:
        async with submitting(group, listeners):
            await group.ended


def _group(context: RequestContext) -> SequenceGroup:
    service = context.service
    return SequenceGroup(service.engine, service.awakening, context.client, context.lease)
