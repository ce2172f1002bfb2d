"""Waiting for the first of several things, or for all of them for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from typing import Any


async def first_of(*awaitables: Awaitable[Any], forever: Collection[asyncio.Future[Any]]) -> None:
    """Wait until one is done, and cancel the others, except `forever`."""
    futures = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future in futures:
        if future not in forever:
            future.cancel()


async def all_within(seconds: float, futures: list[Any]) -> None:
    """Return when all are done, or after so many seconds."""
    if pending := [future for future in futures if not future.done()]:
        await asyncio.wait(pending, timeout=seconds)
