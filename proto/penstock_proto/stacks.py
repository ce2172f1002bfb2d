"""Where the threads of a process stand: written to its log on a signal, and when it crashes.

The handler is C and needs no lock of Python's, so it answers in a process whose threads all wait in
a library. One that is stopped (SIGSTOP) answers when it goes on.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from collections.abc import Iterable

SIGNAL = signal.SIGUSR1  # which the launcher sends too


def answer_with_stacks() -> None:
    """To be called before anything that can hang: unanswered, the signal ends a process."""
    faulthandler.enable()
    faulthandler.register(SIGNAL, all_threads=True)


def ask_for_stacks(processes: Iterable[int]) -> None:
    """Have processes of ours, each of which answers, write their stacks to their logs."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, SIGNAL)
