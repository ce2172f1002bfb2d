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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import triton
from triton.runtime.jit import JITFunction

MOST_THREADS = 16


@contextlib.contextmanager
def compile_only() -> Iterator[None]:
    """Launches of Triton's and Gluon's kernels compile and launch nothing; what they would have
    written stays as it was. Other operations run. At the end all are compiled.

    For one thread: others must launch nothing meanwhile. Raises what a compilation raises.
    """
    launched = JITFunction.__getitem__
    threads = min(MOST_THREADS, os.cpu_count() or 1)

    def compiled(kernel: Any, grid: object) -> Callable[..., object]:
        return functools.partial(kernel.run, grid=grid, warmup=True)

    with ThreadPoolExecutor(threads) as pool, triton.AsyncCompileMode(pool):
        JITFunction.__getitem__ = compiled
        try:
            yield
        finally:
            JITFunction.__getitem__ = launched
