"""The memory of a server's processes that no file backs, and how it grows.

What leaks may be swapped out or hide among mapped files, so RssAnon and VmSwap are added up.
"""

from __future__ import annotations

import statistics
from contextlib import suppress
from pathlib import Path

from tests.attack.memory import router_processes
from tests.attack.target import Target

FIELDS = ("RssAnon:", "VmSwap:")


def processes_of(target: Target) -> list[int]:
    """Ids of the launcher's children and theirs; none where the server is not of this machine."""
    found = router_processes(target)
    if not found:
        return []
    router = min(found, key=lambda process: process.create_time())
    launcher = router.parent()
    return [process.pid for process in (launcher or router).children(recursive=True)]


def held(target: Target) -> int:
    """Bytes of all of them now; those that come and go count while they are there."""
    return sum(map(_held, processes_of(target)))


def _held(process: int) -> int:
    lines: list[list[str]] = []
    with suppress(OSError):
        lines = [line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines()]
    return sum(int(words[1]) << 10 for words in lines if words and words[0] in FIELDS)


def blocks_and_sequences(page: str) -> dict[str, float]:
    """Of /metrics, what must be 0 when nothing runs."""
    names = ("penstock_kv_blocks_used", "penstock_running_sequences", "tgi_queue_size")
    pairs = (line.split() for line in page.splitlines() if line.startswith(names))
    return {name: float(value) for name, value in pairs}


def slope(samples: list[tuple[int, int]]) -> float:
    """Bytes a request, fitted to (requests ended, bytes held) of the last two thirds."""
    settled = samples[len(samples) // 3 :]
    if len({count for count, _ in settled}) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*settled, strict=True)).slope
