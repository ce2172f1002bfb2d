"""The process that compiles a template, and that those which render are forked from.

A process that had to be ended is so replaced in a millisecond, and costs nobody its start.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import Any

from penstock_router.templates import errors, wire
from penstock_router.templates.template import Script

COMMAND = (sys.executable, "-P", "-m", "penstock_router.templates")
# Nothing secret: no tokens, keys or addresses.
ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
START_SECONDS = 60.0  # to import; a machine may be slow
COMPILE_SECONDS = 1.0  # of a processor
COMPILE_WALL_SECONDS = 5.0
FORK_SECONDS = 10.0


class ForkServer:
    """See the module. For all threads.

    Raises TemplateError where the template cannot be compiled.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._lock = threading.Lock()
        self._closed = False
        self._start()

    def fork(self, last: int | None) -> tuple[socket.socket, int, int]:
        """A new process: its socket, its id, and how the last one ended, negative for a signal.

        last: the process that it replaces, which is ended.
        """
        with self._lock:
            if self._closed:
                raise errors.TemplateError("the server is shutting down")
            try:
                return self._fork(last)
            except (EOFError, OSError):  # somebody killed it, and those that it made
                self._end()
                self._start()
                return self._fork(None)

    def close(self) -> None:
        """End it and all that it made, at once, also while it starts or is asked for something."""
        self._closed = True
        self._process.kill()  # whoever waits for it gives up, and the lock
        with self._lock:
            self._end()

    def _fork(self, last: int | None) -> tuple[socket.socket, int, int]:
        self._wire.settimeout(FORK_SECONDS)
        self._wire.sendall(wire.pack({"last": last}))
        data, descriptors, _, _ = socket.recv_fds(
            self._wire, wire.BORN.size, 1, socket.MSG_CMSG_CLOEXEC
        )
        if len(data) < wire.BORN.size or not descriptors:
            for descriptor in descriptors:
                os.close(descriptor)
            raise EOFError
        return socket.socket(fileno=descriptors[0]), *wire.BORN.unpack(data)

    def _start(self) -> None:
        self._wire, its = socket.socketpair()
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        with its:
            self._process = subprocess.Popen(
                COMMAND, stdin=its.fileno(), stdout=subprocess.DEVNULL, env=environment
            )
        if self._closed:  # meanwhile: `close` knew the one before only
            self._process.kill()
        try:
            self._compile()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        self._process.kill()
        self._wire.close()
        self._process.wait()

    def _compile(self) -> None:
        try:
            wire.receive(self._wire, START_SECONDS)
            first = {"seconds": COMPILE_SECONDS, "script": self._script}
            self._wire.sendall(wire.pack(first))
            answer: dict[str, Any] = wire.receive(self._wire, COMPILE_WALL_SECONDS)
        except TimeoutError:
            raise errors.TooSlow from None
        except (EOFError, OSError):
            raise ended(self._process.wait()) from None
        errors.raise_from(answer)


def ended(code: int) -> errors.TemplateError:
    """Why a process ended by itself."""
    if code == wire.OUT_OF_TIME:
        return errors.TooSlow()
    return errors.TemplateError("the template ended the process that renders it")
