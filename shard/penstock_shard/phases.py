"""Where the time of this process's start went, in seconds by phase."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

SPENT: dict[str, float] = {}  # of this process: it starts once


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Count what happens within as a phase; where it happens twice, both times."""
    start = time.perf_counter()
    try:
        yield
    finally:
        SPENT[name] = SPENT.get(name, 0.0) + time.perf_counter() - start
