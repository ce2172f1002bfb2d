"""A process that renders, as the router sees it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

from penstock_router.templates import errors, wire
from penstock_router.templates.template import Job, Page, Script

COMMAND = (sys.executable, "-P", "-m", "penstock_router.templates")
# Nothing secret: no tokens, keys or addresses.
ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
START_SECONDS = 60.0  # to import; a machine may be slow
COMPILE_SECONDS = 1.0  # of a processor
COMPILE_WALL_SECONDS = 5.0


class Renderer:
    """A process with one template; replaced when it dies. For one thread at a time."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._closing = threading.Lock()
        self._closed = False
        self._compiled = False
        self._wire, self._process = _spawn()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def compile(self) -> None:
        """Wait until the template is compiled. Raises TemplateError where it cannot be."""
        if not self._compiled:
            self._exchange(None, START_SECONDS)
            first = {"seconds": COMPILE_SECONDS, "script": self._script}
            self._exchange(first, COMPILE_WALL_SECONDS)
            self._compiled = True

    def render(self, job: Job, seconds: float, wall_seconds: float) -> Page:
        """What the template makes of a job.

        seconds: of a processor. Raises TemplateError; TooSlow when either time is over.
        """
        if self._process.poll() is not None:  # killed, by somebody else
            self._restart()
        self.compile()
        return Page(**self._exchange({"seconds": seconds, "job": job}, wall_seconds)["page"])

    def close(self) -> None:
        """End the process at once, from any thread."""
        with self._closing:
            self._closed = True
            self._end()

    def _end(self) -> int:
        """The code that it ended with, negative for a signal."""
        self._process.kill()
        self._wire.close()
        return self._process.wait()

    def _restart(self) -> int:
        """Replace the process; the code that the old one ended with."""
        with self._closing:
            code = self._end()
            self._compiled = False
            if not self._closed:
                self._wire, self._process = _spawn()
        return code

    def _exchange(self, message: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        """Send, and receive the answer. The process is replaced where none comes in time."""
        try:
            packed = b"" if message is None else wire.pack(message)
        except TypeError as error:
            raise errors.TemplateError(f"the messages cannot be rendered: {error}") from None
        try:
            self._wire.settimeout(seconds)
            self._wire.sendall(packed)
            answer: dict[str, Any] = wire.receive(self._wire, seconds)
        except TimeoutError:
            self._restart()
            raise errors.TooSlow from None
        except (EOFError, OSError, ValueError):
            if self._restart() == -signal.SIGPROF:
                raise errors.TooSlow from None
            raise errors.TemplateError("the template ended the process that renders it") from None
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["sentence"])
        return answer


def _spawn() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A process, and our end of its socket."""
    ours, its = socket.socketpair()
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    with its:
        process = subprocess.Popen(
            COMMAND, stdin=its.fileno(), stdout=subprocess.DEVNULL, env=environment
        )
    return ours, process
