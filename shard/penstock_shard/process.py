"""A shard's life: configuration from standard input, load, serve, and end with a reason."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

from penstock_shard import log, phases

PARENT = os.getppid()  # before the imports below, which take seconds
BEGUN = time.perf_counter()

from penstock_shard.config import ShardConfig  # noqa: E402
from penstock_shard.server import Servicer, message_limit, serve  # noqa: E402
from penstock_shard.weights.loaded_model import load  # noqa: E402

# Time for the last result, or the error, to reach the router.
GRACE_SECONDS = 2.0
# How long a thread may keep the interpreter while another waits for it. The one that makes masks
# for grammars waits for the executor: with Python's 5 ms a single stream of 1B on an H200 had 0.79
# of its speed without a grammar, with this 0.88. Steps without grammars do not feel it.
SWITCH_SECONDS = 0.0005


class _End:
    """Why the shard ends: the first reason counts."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.reason: BaseException | None = None

    def set(self, reason: BaseException | None) -> None:
        """End now; None is the ordinary end. A failure that comes with the end replaces it."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
        self._event.set()

    def wait(self) -> None:
        self._event.wait()


def main() -> None:
    """Run the shard. Never returns: the process ends here, whatever its threads wait for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the launcher's to handle
    signal.signal(signal.SIGTERM, _exit_now)
    try:
        _run()
    except Exception as error:
        _report(error)
        _exit(1)
    _exit(0)


def _run() -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    config = ShardConfig.from_json(sys.stdin.read())
    phases.SPENT["import"] = time.perf_counter() - BEGUN
    with phases.phase("load"):
        loaded = load(config)
    end = _End()
    folder = Path(config.socket_folder)
    servicer = Servicer(loaded, end.set)
    server = serve(servicer, folder, loaded.group.rank, message_limit(loaded), config.listen)
    signal.signal(signal.SIGTERM, lambda number, frame: end.set(None))
    try:
        if os.getppid() != PARENT:
            raise RuntimeError("the launcher ended while the shard was loading")
        _report_ready()
        end.wait()
        server.stop(GRACE_SECONDS).wait(GRACE_SECONDS)
    finally:
        (folder / f"shard-{loaded.group.rank}.sock").unlink(missing_ok=True)
    if end.reason is not None:
        raise end.reason


def _report_ready() -> None:
    """One line to the pipe that the launcher waits on."""
    number = os.environ.get("PENSTOCK_READY_FD")
    if number is not None:
        with os.fdopen(int(number), "w") as pipe:
            pipe.write("{}\n")


def _report(error: Exception) -> None:
    """The reason is the last line; a bug's traceback stands before it."""
    if not isinstance(error, (ValueError, OSError)):
        log.error("traceback", traceback="".join(traceback.format_exception(error)))
    log.error(str(error) or type(error).__name__)


def _exit_now(number: int, frame: FrameType | None) -> None:
    _exit(0)


def _exit(code: int) -> None:
    """Without interpreter shutdown: a thread may wait for a rank that is gone."""
    sys.stderr.flush()
    os._exit(code)
