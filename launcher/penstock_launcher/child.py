"""A process that the launcher started: it dies with the launcher, says when it is ready, and logs.

The contract (docs/design.md): configuration as JSON on standard input, one JSON line on the pipe
named by PENSTOCK_READY_FD when ready, log lines on standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import enum
import functools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock_launcher.errors import LauncherError
from penstock_launcher.logs import LineSplitter, Log, Tail

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CHUNK = 64 * 1024  # bytes read from a pipe at a time
SHOW_STACKS = signal.SIGUSR1  # penstock_proto.stacks answers
_libc = ctypes.CDLL(None, use_errno=True)


class Role(enum.Enum):
    """What a child is for. A TASK ends with code 0 when it is done; the others must not end."""

    TASK = "task"
    SHARD = "shard"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class Program:
    """What to start, and what it is told."""

    name: str  # "shard 0", "router"
    role: Role
    argv: tuple[str, ...]
    config: Mapping[str, object]
    environment: Mapping[str, str]
    descriptors: tuple[int, ...] = ()  # that it inherits, beside the standard ones


class Child:
    """A started program. Lives on the event loop; `on_gone` is called by the supervisor."""

    def __init__(self, program: Program, log: Log) -> None:
        """Raises LauncherError when the program cannot be started."""
        loop = asyncio.get_running_loop()
        self.program = program
        self.tail = Tail()
        self.ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()  # code, negative for a signal
        self.silent: asyncio.Future[None] = loop.create_future()  # nothing more will be logged
        self._log = log
        self._lines = LineSplitter()
        self._ready_line = bytearray()
        ready_pipe, child_end = os.pipe()
        try:
            self._process = _spawn(program, child_end)
        except OSError as error:
            os.close(ready_pipe)
            raise LauncherError(f"cannot start {program.name}: {error}") from None
        finally:
            os.close(child_end)
        self._send_config()
        assert self._process.stdout is not None
        _on_data(self._process.stdout.fileno(), self._hear, self._fall_silent)
        _on_data(ready_pipe, self._hear_ready, functools.partial(self._no_ready, ready_pipe))

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def group(self) -> int:
        """Id of the process and of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self.ended.done()

    def signal(self, number: signal.Signals) -> None:
        """Send to the process and what it started; nothing happens when it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, number)

    def show_stacks(self) -> None:
        """Have the process write where each of its threads stands to its log."""
        self._tell(SHOW_STACKS)

    def terminate(self) -> None:
        """SIGTERM to the process alone: how it ends its own is its business.

        One that is stopped would hear it never.
        """
        self._tell(signal.SIGTERM)
        self._tell(signal.SIGCONT)

    def _tell(self, number: int) -> None:
        """Send to the process alone.

        Not by Popen, which first asks whether the process has ended, and so takes from reap()
        what it waits for. Until reap() has seen the end, the id belongs to this process.
        """
        if self.alive:
            os.kill(self.group, number)

    def reap(self) -> bool:
        """True once, when the process has ended. Whatever it left in its group is killed."""
        if not self.alive:
            return False
        # while the process is a zombie, its id cannot belong to anybody else's group
        if os.waitid(os.P_PID, self.group, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        self.signal(signal.SIGKILL)
        self.ended.set_result(self._process.wait())
        return True

    def _send_config(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died already, which is noticed elsewhere
            self._process.stdin.write(json.dumps(dict(self.program.config)).encode())
            self._process.stdin.close()

    def _hear(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self.tail.add(self._log.child_line(self.name, line))

    def _fall_silent(self) -> None:
        for line in self._lines.flush():
            self.tail.add(self._log.child_line(self.name, line))
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.silent.set_result(None)

    def _hear_ready(self, data: bytes) -> None:
        if self.ready.done():
            return
        self._ready_line += data
        if b"\n" not in data and len(self._ready_line) < CHUNK:
            return
        try:
            self.ready.set_result(dict(json.loads(self._ready_line)))
        except (ValueError, TypeError):
            self._broken_contract("said something else than a JSON object when ready")

    def _no_ready(self, pipe: int) -> None:
        os.close(pipe)
        if not self.ready.done():
            self._broken_contract("will never be ready: it closed its end of the pipe")

    def _broken_contract(self, complaint: str) -> None:
        self.ready.set_exception(LauncherError(f"{self.name} {complaint}"))
        self.ready.exception()  # retrieved, so that asyncio does not complain if nobody waits


def _spawn(program: Program, ready_fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        program.argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**program.environment, "PENSTOCK_READY_FD": str(ready_fd)},
        pass_fds=(ready_fd, *program.descriptors),
        start_new_session=True,  # Ctrl-C on the terminal reaches the launcher alone
        preexec_fn=functools.partial(_die_with, os.getpid()),
    )


def _die_with(launcher: int) -> None:
    """In the child, before the program starts: whoever kills the launcher kills this process."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(SHOW_STACKS, signal.SIG_IGN)  # until it answers, if it ever does
    if os.getppid() != launcher:  # it died before prctl
        os._exit(1)


def _on_data(fd: int, receive: Callable[[bytes], None], end: Callable[[], None]) -> None:
    """Call `receive` for whatever comes out of a pipe, and `end` once at its end."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)

    def read() -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        if data:
            receive(data)
        else:
            loop.remove_reader(fd)
            end()

    loop.add_reader(fd, read)
