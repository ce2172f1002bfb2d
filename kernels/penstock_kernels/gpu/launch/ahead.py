"""Compiling kernels before they are needed, side by side.

A kernel is compiled when it is first launched: 0.1 to 0.6 s each, one after the other, for some 50
kernels of a model's steps (8B on an H100; when they were some 70, 20 of the 26 s of a warmup). The
compiler releases Python's lock, so threads share that out; `triton.AsyncCompileMode` does so for
launches that ask for compilation only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import triton
from triton.runtime.jit import JITFunction

MOST_THREADS = 16


Told = Callable[[int, int], None]  # of so many kernels, so many


class CountedPool(ThreadPoolExecutor):
    """Tells how many of its tasks are done, from when it knows them all."""

    def __init__(self, threads: int, told: Told | None) -> None:
        super().__init__(threads)
        self._told = told
        self._given = self._done = 0
        self._knows_all = False
        self._lock = threading.Lock()

    def submit(self, task: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        with self._lock:
            self._given += 1
        future = super().submit(task, *args, **named)
        future.add_done_callback(self._ended)
        return future

    def no_more(self) -> None:
        """All tasks were given."""
        with self._lock:
            self._knows_all = True
            self._tell()

    def _ended(self, _future: Future[Any]) -> None:
        with self._lock:
            self._done += 1
            self._tell()

    def _tell(self) -> None:
        if self._told is not None and self._knows_all:
            self._told(self._done, self._given)


@contextlib.contextmanager
def compile_only(told: Told | None = None) -> Iterator[None]:
    """Launches of Triton's and Gluon's kernels compile and launch nothing; what they would have
    written stays as it was. Other operations run. At the end all are compiled; `told` hears how
    many of them are, from whatever thread.

    For one thread: others must launch nothing meanwhile. Raises what a compilation raises.
    """
    launched = JITFunction.__getitem__
    threads = min(MOST_THREADS, os.cpu_count() or 1)

    def compiled(kernel: Any, grid: object) -> Callable[..., object]:
        return functools.partial(kernel.run, grid=grid, warmup=True)

    with CountedPool(threads, told) as pool, triton.AsyncCompileMode(pool):
        JITFunction.__getitem__ = compiled
        try:
            yield
        finally:
            JITFunction.__getitem__ = launched
        pool.no_more()
