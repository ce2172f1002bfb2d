"""The processes that render, and who gets one when.

Every conversation first gets a tenth of a second, where common ones need less than a thousandth.
One that needs more is rendered again by a process for such ones, until two seconds have passed. So
those that take long wait for one another, and others hardly wait for them.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from penstock_router.templates.errors import TemplatesBusy, TooSlow
from penstock_router.templates.fork_server import ForkServer
from penstock_router.templates.process import Renderer
from penstock_router.templates.template import Job, Page, Script

WAIT_SECONDS = 5.0  # for a process


@dataclass(frozen=True, slots=True)
class Patience:
    """What a conversation may take: seconds of a processor, and seconds in all."""

    seconds: float
    wall_seconds: float


QUICK = Patience(0.1, 0.5)
LONG = Patience(1.3, 1.5)


class TemplatePool:
    """A template in `workers` processes, and one more for what takes long.

    Raises TemplateError where the template cannot be compiled. May be used from any event loop.
    """

    def __init__(self, script: Script, workers: int) -> None:
        self._fork_server = ForkServer(script)
        try:
            quick = [Renderer(self._fork_server) for _ in range(max(workers, 1))]
            long = [Renderer(self._fork_server)]
        except BaseException:
            self._fork_server.close()
            raise
        self.quick, self.long = Lane(quick, QUICK), Lane(long, LONG)

    async def render(self, job: Job) -> Page:
        """What the template makes of a conversation. Raises TemplateError."""
        try:
            return await self.quick.render(job)
        except TooSlow:
            return await self.long.render(job)

    def close(self) -> None:
        """End all processes at once, whatever they do."""
        for lane in (self.quick, self.long):
            lane.close()
        self._fork_server.close()


class Lane:
    """Some processes, and a thread for each that waits for it."""

    def __init__(self, renderers: Sequence[Renderer], patience: Patience) -> None:
        self.renderers = renderers
        self._patience = patience
        self._idle: queue.SimpleQueue[Renderer] = queue.SimpleQueue()
        for renderer in renderers:
            self._idle.put(renderer)
        self._threads = ThreadPoolExecutor(len(renderers), thread_name_prefix="template")

    async def render(self, job: Job) -> Page:
        """Raises TemplateError; TooSlow, and TemplatesBusy when no process becomes free."""
        asked = time.monotonic()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._render, job, asked)

    def close(self) -> None:
        """Render nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _render(self, job: Job, asked: float) -> Page:
        if time.monotonic() - asked > WAIT_SECONDS:
            raise TemplatesBusy
        renderer = self._idle.get_nowait()  # there is one for each thread
        try:
            return renderer.render(job, self._patience.seconds, self._patience.wall_seconds)
        finally:
            self._idle.put(renderer)
