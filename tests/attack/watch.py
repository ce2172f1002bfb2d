"""Listens to the canary: what it saw between two moments."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.attack.target import Target

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 40.0  # seconds for the canary to get an answer again, more than its own timeout


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer that the canary got. Times are of the monotonic clock, the same everywhere."""

    kind: str
    start: float
    end: float
    answer: str


@dataclass(frozen=True, slots=True)
class Song:
    """What the canary saw in a while: seconds of each answered question, and what went wrong."""

    generate: tuple[float, ...]
    health: tuple[float, ...]
    refused: int  # 429 or 503: allowed while others fill the server
    broken: tuple[str, ...]  # anything else but a right answer

    @property
    def p50(self) -> float:
        return quantile(self.generate, 0.5)

    @property
    def p99(self) -> float:
        return quantile(self.generate, 0.99)

    @property
    def worst_health(self) -> float:
        return max(self.health, default=float("inf"))


def quantile(values: tuple[float, ...], q: float) -> float:
    """The value below which a share `q` lies; infinite where nothing was answered at all."""
    ordered = sorted(values) or [float("inf")]
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


class Watch:
    """Collects the canary's samples."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._more = asyncio.Event()
        self._right = {"health": "200"}

    async def collect(self, lines: asyncio.StreamReader) -> None:
        """Read the canary's output until it ends."""
        async for line in lines:
            sample = Sample(**json.loads(line))
            if sample.answer.startswith("200"):
                self._right.setdefault(sample.kind, sample.answer)
            self._samples.append(sample)
            self._more.set()

    async def answered_after(self, moment: float) -> bool:
        """Wait until both kinds of questions asked after `moment` have an answer."""
        try:
            async with asyncio.timeout(PATIENCE):
                while len({s.kind for s in self._samples if s.start >= moment}) < 2:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return False
        return True

    def between(self, start: float, end: float) -> Song:
        """What was asked or still open between two moments.

        The first text that the server ever gives to the canary's question is the right one.
        """
        seconds: dict[str, list[float]] = {"generate": [], "health": []}
        broken: list[str] = []
        refused = 0
        for sample in self._samples:
            if sample.end < start or sample.start > end:
                continue
            if sample.answer[:3] in ("429", "503"):
                refused += 1
            elif sample.answer != self._right.get(sample.kind):
                broken.append(f"{sample.kind}: {sample.answer}")
            else:
                seconds[sample.kind].append(sample.end - sample.start)
        return Song(tuple(seconds["generate"]), tuple(seconds["health"]), refused, tuple(broken))


@asynccontextmanager
async def canary(target: Target) -> AsyncIterator[Watch]:
    """A canary that sings, and whoever listens to it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.attack.canary", target.url),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    watch = Watch()
    collecting = asyncio.create_task(watch.collect(process.stdout))
    try:
        if not await watch.answered_after(time.monotonic()):
            raise TimeoutError(f"{target.url} does not answer")
        yield watch
    finally:
        process.kill()
        await process.wait()
        collecting.cancel()
