"""Without a GPU, Triton's kernels run in its interpreter.

Triton reads this variable when it is imported, which transformers does: so it is set here, before
pytest imports any test.
"""

import gc
import os
import signal
from pathlib import Path

from hypothesis import HealthCheck, settings

from support.quick_interpreter import quicken

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    # torch gives each process a thread a core, which wait for one another by spinning: on cores
    # that two workers of the tests and their servers share, that took most of the time.
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
    """The tests that use the interpreter have imported it. What is imported stays: no collection
    of garbage, of which a shard asks for some, needs to look through it."""
    quicken()
    gc.collect()
    gc.freeze()
    gc.enable()
