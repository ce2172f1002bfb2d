"""What holds for all tests, and has to be said before pytest imports any of them.

Without a GPU, Triton's kernels run in its interpreter: Triton reads this variable when it is
imported, which transformers does.
"""

import gc
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.quick_interpreter import quicken

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    # torch gives each process a thread a core, which wait for one another by spinning: on cores
    # that two workers of the tests and their servers share, that took most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Imports make what stays: while they last, the collector of garbage looks for what is not there.
gc.disable()

# `make test` has a process of tests for each core. With a thread for each core in each of them, and
# in each shard that they start, threads wait for one another that the machine does not let run: on
# a busy one a step of a tiny model takes twenty times as long, and three times the processor time.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what is to run behind it with this signal ignored, and so would all our children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may fail because the machine is busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays: Python does not search it for garbage while it grows."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """The tests that use the interpreter have imported it. No collection of garbage, of which a
    shard asks for some, needs to look through what is imported."""
    quicken()
    gc.collect()
    gc.freeze()
    gc.enable()
