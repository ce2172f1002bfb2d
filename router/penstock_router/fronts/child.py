"""A process that serves HTTP and text, as the scheduling process sees it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable

from prometheus_client import ProcessCollector

from penstock_proto.front_pb2 import ToFront
from penstock_router.config import RouterConfig
from penstock_router.engine import Engine
from penstock_router.fronts.config import FrontConfig, limits_line
from penstock_router.fronts.frames import Frames
from penstock_router.fronts.port import Port
from penstock_router.metrics import Metrics

COMMAND = (sys.executable, "-m", "penstock_router.fronts")
UNREAD_BYTES = 64 * 1024 * 1024  # that a front has not taken: it hangs


class FrontProcess:
    """A front that was started. on_failure is called with the reason when it dies or hangs."""

    def __init__(
        self,
        name: str,
        process: Process,
        frames: socket.socket,
        connections: socket.socket,
        on_failure: Callable[[str], None],
    ) -> None:
        """frames, connections: our ends of its two sockets."""
        self.connections = connections
        self.ended = asyncio.create_task(self._watch())
        self._name = name
        self._process = process
        self._frames = frames
        self._on_failure = on_failure
        self._wire: Frames | None = None

    @classmethod
    async def start(
        cls, config: RouterConfig, place: int, permits: int, on_failure: Callable[[str], None]
    ) -> FrontProcess:
        """Start the process; it loads its text, and waits for `open`."""
        frames, its_frames = socket.socketpair()
        # A message each, so that descriptors never run together.
        connections, its_connections = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connections.setblocking(False)
        with its_frames, its_connections:
            descriptors = (its_frames.fileno(), its_connections.fileno(), permits)
            process = await asyncio.create_subprocess_exec(
                *COMMAND, stdin=PIPE, pass_fds=descriptors
            )
        front = cls(f"HTTP process {place}", process, frames, connections, on_failure)
        # Its memory, CPU time and descriptors, beside this process' own in /metrics.
        ProcessCollector(namespace=f"penstock_http_{place}", pid=lambda: process.pid)
        its_config = FrontConfig(
            router=config,
            frames=descriptors[0],
            connections=descriptors[1],
            permits=permits,
            place=place,
        )
        front._tell(its_config.line())
        return front

    async def open(self, engine: Engine, metrics: Metrics) -> None:
        """Returns when it takes connections."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        port = Port(engine, metrics, self.send, lambda: ready.set_result(None))
        self._wire = wire = Frames(port.receive, port.gone)
        await loop.create_unix_connection(lambda: wire, sock=self._frames)
        self._tell(limits_line(engine.limits))
        await ready

    def send(self, message: ToFront) -> None:
        """Say something to it."""
        if self._wire is None:
            return
        self._wire.send(message)
        if self._wire.unread > UNREAD_BYTES:
            self._on_failure(f"{self._name} hangs: {self._wire.unread >> 20} MiB are unread")

    def kill(self) -> None:
        """End it at once, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self.connections.close()
        if self._wire is not None:
            self._wire.close()

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    async def _watch(self) -> None:
        code = await self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        self._on_failure(f"{self._name} {how}")
