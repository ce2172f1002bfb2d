"""glibc's allocator, told to give large blocks back to the system as soon as they are free.

By itself it learns from the first large block that is freed, and keeps blocks of that size from
then on, each thread in an arena of its own: texts of megabytes that were refused long ago stay in
memory, once for each thread that has ever seen one.
"""

from __future__ import annotations

import ctypes

LARGE_BYTES = 512 * 1024  # more than uvloop reads at once
ARENAS = 4  # among which threads are dealt out
# malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8

_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def keep_no_large_blocks() -> None:
    """For the rest of this process's life; where the C library is glibc."""
    if _mallopt is not None and _trim is not None:
        _mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        _mallopt(M_TRIM_THRESHOLD, 16 * LARGE_BYTES)  # of small ones, which come again
        _mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """What is free of small blocks too, in all arenas; holds the allocator's locks meanwhile."""
    if _trim is not None:
        _trim(0)
