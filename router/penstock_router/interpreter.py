"""Python's interpreter, which one thread holds at a time."""

from __future__ import annotations

import sys

# How long a thread may keep it while another waits. The event loop takes it for each thing that it
# hears of, some twenty times for a short answer. With Python's 5 ms it stood behind whatever a
# client had another thread compute, for a tenth of a second a request.
SWITCH_SECONDS = 0.0005


def share_interpreter() -> None:
    """Have threads that compute give it to the event loop soon."""
    sys.setswitchinterval(SWITCH_SECONDS)
