"""What a process that renders may do: compute for a while, in some memory, and nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

MEMORY = 512 * 1024 * 1024  # bytes of address space, Python's own included
PR_SET_PDEATHSIG = 1  # linux/prctl.h
REPEAT = 0.02  # seconds; Python drops an exception that comes while an object is destroyed


class OutOfTime(BaseException):
    """Time is over. Nothing that a template may do catches it."""


def die_with_parent() -> None:
    """End with the router, which alone says when: signals to a group of processes are for it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def confine() -> None:
    """From here on: few files, no writing, little memory."""
    with contextlib.suppress(OSError):  # if the machine has no memory left, this one ends first
        Path("/proc/self/oom_score_adj").write_text("1000")
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_NOFILE, 16)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)


def open_nothing() -> None:
    """From here on: no new files and connections."""
    _limit(resource.RLIMIT_NOFILE, 0)


def _limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, value))


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Seconds of the processor, so that other processes cost no conversation its time.

    Raises OutOfTime where Python code runs on. What computes without it, the kernel ends with
    SIGVTALRM, after half as much again. That one counts the program's own time only, and the
    first the kernel's too, so the first always comes first: how the kernel tells the two apart
    is rough on a busy machine. Memory is bounded, and so what the kernel does in one call.
    """
    armed, rung = True, False

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal rung
        if armed:
            rung = True
            raise OutOfTime

    signal.signal(signal.SIGPROF, ring)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 1.5 * seconds + 0.1)
        signal.setitimer(signal.ITIMER_PROF, seconds, REPEAT)
        try:
            yield
        except Exception as error:  # what Jinja makes of a ring while it deals with another one
            if rung:
                raise OutOfTime from error
            raise
        finally:
            armed = False  # a ring may come before this line, and the next one is REPEAT away
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
