"""What computes for long in a thread, and leaves the event loop its turns.

A thread that computes keeps the interpreter for five milliseconds whenever the event loop wants it,
and a request wakes the loop some ten times. So it sleeps for a moment now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

TURN = 1e-4  # seconds
FEW = 1024  # entries of an answer that are written on the event loop


async def written(entries: int, write: Callable[[], T]) -> T:
    """What an answer shows in so many entries: by a thread where they are many."""
    return write() if entries <= FEW else await asyncio.to_thread(write)


def leaving_turns(items: Iterable[T], at_once: int) -> Iterator[T]:
    """The items; a turn is left behind each `at_once` of them, so on the event loop there may be no
    more."""
    for count, item in enumerate(items):
        if count and count % at_once == 0:
            time.sleep(TURN)
        yield item
