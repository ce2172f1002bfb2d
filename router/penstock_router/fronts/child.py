"""A process that serves HTTP and text, as the scheduling process sees it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable

from google.protobuf.message import DecodeError

from penstock_proto.api_keys import ApiKey
from penstock_proto.front_pb2 import FromFront, ToFront
from penstock_proto.stacks import ask_for_stacks
from penstock_router.config import RouterConfig
from penstock_router.engine import Engine
from penstock_router.fronts.activity import Activity
from penstock_router.fronts.config import FrontConfig, limits_line
from penstock_router.fronts.frames import BEAT_SECONDS, BadFrame, Frames
from penstock_router.fronts.front_link import FrontLink
from penstock_router.logs import log
from penstock_router.metrics import Metrics
from penstock_router.quotas import Quotas

COMMAND = (sys.executable, "-m", "penstock_router.fronts")
UNREAD_BYTES = 64 * 1024 * 1024  # that a front has not taken: it hangs
SILENT_BEATS = 30  # that a front has left out in which it did not compute either: it hangs
BUSY_BEATS = 120  # that a front has left out, whatever it computes
LATE_BEATS = 3  # then others get its connections
LAST_WORDS_SECONDS = 1.0  # for what a dead front had written to arrive


class FrontProcess:
    """A front that was started. on_failure is called with the reason when it dies or hangs."""

    def __init__(
        self,
        place: int,
        process: Process,
        handover: socket.socket,
        on_failure: Callable[[str], None],
    ) -> None:
        """handover: our end of the socket for connections."""
        self.handover = handover
        self.pid = process.pid
        self._name = f"HTTP process {place}"
        self._process = process
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._wire = Frames(self._receive, self._lost)
        self._link: FrontLink | None = None
        self._fault = ""
        self._silence = 0  # beats
        self._idle = 0  # those of them in which it did not compute
        self._activity = Activity(process.pid)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._silent: asyncio.Future[None] = self._loop.create_future()  # nothing more will come
        self.ended = asyncio.create_task(self._watch())

    @classmethod
    async def start(
        cls, config: RouterConfig, place: int, permits: int, on_failure: Callable[[str], None]
    ) -> FrontProcess:
        """Start the process; it loads its text, and waits for `open`."""
        frames, its_frames = socket.socketpair()
        # A message each, so that descriptors never run together.
        handover, its_handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handover.setblocking(False)
        with its_frames, its_handover:
            its_config = FrontConfig(
                router=config,
                frames=its_frames.fileno(),
                handover=its_handover.fileno(),
                permits=permits,
                place=place,
            )
            descriptors = (its_config.frames, its_config.handover, permits)
            process = await asyncio.create_subprocess_exec(
                *COMMAND, stdin=PIPE, pass_fds=descriptors
            )
        front = cls(place, process, handover, on_failure)
        await front._loop.create_unix_connection(lambda: front._wire, sock=frames)
        front._tell(its_config.line())
        return front

    @property
    def responsive(self) -> bool:
        """It was heard of lately."""
        return self._silence < LATE_BEATS

    async def open(self, engine: Engine, metrics: Metrics, quotas: Quotas) -> None:
        """Returns when it takes connections."""
        self._link = FrontLink(engine, metrics, self._send, quotas)
        self._tell(limits_line(engine.limits))
        await self._ready
        self._listen_for_beats()

    def withdraw(self) -> None:
        """Let it tell whoever looks that requests should go elsewhere."""
        if self._link is not None:
            self._link.withdraw()

    def drain(self) -> None:
        """Let it turn new requests away."""
        if self._link is not None:
            self._link.drain()

    def trouble(self, reason: str) -> None:
        """Tell it why nothing would be generated now, or that all is well (empty)."""
        if self._link is not None:
            self._link.trouble(reason)

    def replace_keys(self, keys: tuple[ApiKey, ...]) -> None:
        """Tell it the API keys that count from now on."""
        if self._link is not None:
            self._link.replace_keys(keys)

    def leave(self) -> None:
        """Let it send what is left of answers, and end."""
        if self._link is not None:
            self._link.leave()
        elif self._process.stdin is not None:
            self._process.stdin.close()  # there is nothing to wait for

    def kill(self) -> None:
        """End it at once, if it is still there."""
        if not self.ended.done():
            log("WARNING", f"{self._name} did not end in time, and is killed")
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self.handover.close()
        self._wire.close()

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    def _send(self, message: ToFront) -> None:
        self._wire.send(message)
        if self._wire.unread > UNREAD_BYTES:
            self._hangs(f"{self._wire.unread >> 20} MiB are unread")

    def _receive(self, data: bytes) -> None:
        try:
            frame = FromFront.FromString(data)
            self._take(frame)
        except (BadFrame, DecodeError) as error:
            self._on_failure(f"{self._name} sent what makes no sense: {error}")
            self._wire.abort()

    def _take(self, frame: FromFront) -> None:
        self._silence = self._idle = 0
        if frame.fault:
            self._fault = frame.fault
        if frame.ready and not self._ready.done():
            self._ready.set_result(None)
        if self._link is not None:
            self._link.receive(frame)

    def _lost(self) -> None:
        self._silent.set_result(None)
        if self._link is not None:
            self._link.gone()

    def _listen_for_beats(self) -> None:
        """Beats are counted, not seconds: when this process was stopped, all were late.

        A front says something from its event loop, so one that is busy for a while says nothing.
        """
        self._silence += 1
        self._idle += not self._activity.computes()
        seconds = self._silence * BEAT_SECONDS
        if self._idle > SILENT_BEATS or self._silence > BUSY_BEATS:
            self._hangs(f"it has said nothing for {seconds:.0f} s")
        elif not self.ended.done():
            if self._silence == LATE_BEATS + 1:
                log("WARNING", f"{self._name} is late: it has said nothing for {seconds:.0f} s")
            self._loop.call_later(BEAT_SECONDS, self._listen_for_beats)

    def _hangs(self, how: str) -> None:
        ask_for_stacks([self.pid])  # it is killed when the others have ended
        self._on_failure(f"{self._name} hangs: {how}")

    async def _watch(self) -> None:
        code = await self._process.wait()
        await asyncio.wait([self._silent], timeout=LAST_WORDS_SECONDS)
        if self._fault:
            how = f": {self._fault}"
        else:
            killed = f" was killed by {_signal_name(-code)}"
            how = killed if code < 0 else f" ended with code {code}"
        self._on_failure(self._name + how)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
