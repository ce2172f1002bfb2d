"""What holds for all tests, and has to be said before pytest imports any of them.

Without a GPU, Triton's kernels run in its interpreter: Triton reads this variable when it is
imported, which transformers does.
"""

import gc
import os
import signal
from pathlib import Path

from hypothesis import HealthCheck, settings

from support.quick_interpreter import quicken

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# `make test` has a worker a core. torch gives each process, and each shard that it starts, a thread
# a core, which wait for one another by spinning: a step of a tiny model took twenty times as long
# on a busy machine, and three times the processor's time. On a machine with a GPU it is what tests
# compare with that does.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Imports make what stays: while they last, the collector of garbage looks for what is not there.
gc.disable()

# A shell starts what is to run behind it with this signal ignored, and so would all our children.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may fail because the machine is busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """The tests that use the interpreter have imported it. No collection of garbage, of which a
    shard asks for some, needs to look through what is imported."""
    quicken()
    gc.collect()
    gc.freeze()
    gc.enable()
