"""Threads for text, of which none is lost to a text that never ends."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from penstock_router.text.library import TokenizerError

T = TypeVar("T")

SECONDS = 30.0  # for one text; two megabytes take two
_MAX_LOST = 8  # threads that may be busy for ever before others must wait for them


class _Job:
    """Work for a thread, and when that began."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self.began: float | None = None
        self.abandoned = False


class Workers:
    """A pool of daemon threads: the process may end while one of them is busy."""

    def __init__(self, count: int, seconds: float = SECONDS) -> None:
        self._count = count
        self._seconds = seconds
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0  # threads that are not abandoned
        self._lost = 0
        for _ in range(count):
            self._start()

    async def run(self, work: Callable[[], T]) -> T:
        """Do the work in a thread. Raises TokenizerError when that takes too long."""
        job = _Job(work)
        future: asyncio.Future[T] = asyncio.wrap_future(job.future)
        self._jobs.put(job)
        try:
            while True:
                await asyncio.wait({future}, timeout=self._left(job))
                if future.done():
                    return future.result()
                if self._abandon(job):
                    raise TokenizerError(f"the text took more than {self._seconds:g} seconds")
        finally:
            future.cancel()
            # An error knows this frame, and what this frame knows knows the error: such a ring
            # keeps its text in memory until the collector comes by, which is seldom.
            del future, job

    def close(self) -> None:
        """Let the threads end; does not wait for them."""
        for _ in range(self._free):
            self._jobs.put(None)

    def _left(self, job: _Job) -> float:
        """Seconds after which the job is to be looked at again."""
        began = job.began
        waited = 0.0 if began is None else time.monotonic() - began
        return max(self._seconds - waited, 0.01)

    def _abandon(self, job: _Job) -> bool:
        """Whether nothing more is awaited of a job; another thread takes the place of its own."""
        with self._lock:
            if job.began is None:
                return self._free == 0  # it waits for threads that never end
            if job.future.done() or time.monotonic() - job.began < self._seconds:
                return False
            job.abandoned = True
            self._free -= 1
            self._lost += 1
            replace = self._lost <= _MAX_LOST
        if replace:
            self._start()
        return True

    def _start(self) -> None:
        with self._lock:
            self._free += 1
        threading.Thread(target=self._work, name="text", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            job.began = time.monotonic()
            _do(job)
            if not self._still_needed(job):
                return
            del job

    def _still_needed(self, job: _Job) -> bool:
        """Whether the thread that did a job goes on. One that was given up may have a successor."""
        with self._lock:
            if not job.abandoned:
                return True
            self._lost -= 1
            if self._free == self._count:
                return False
            self._free += 1
            return True


def _do(job: _Job) -> None:
    """In a frame of its own, which ends: a thread that waits holds no text."""
    try:
        job.future.set_result(job.work())
    except BaseException as error:  # goes to whoever waits for it
        job.future.set_exception(error)
        del job  # see `Workers.run`
