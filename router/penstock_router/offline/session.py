"""One program's connection: its prompts wait here, and run as others end."""

from __future__ import annotations

import asyncio
import time
from array import array
from asyncio import Semaphore
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import orjson
from google.protobuf.message import DecodeError

from penstock_proto import offline_pb2 as wire
from penstock_router.api.errors import ApiError, Kind, from_engine
from penstock_router.api.prepare import output
from penstock_router.api.service import Service
from penstock_router.fronts.frames import Frames
from penstock_router.logs import log
from penstock_router.offline.fields import Wanted
from penstock_router.offline.prompts import Admitted, admitted
from penstock_router.offline.sequence import Generated
from penstock_router.request import EngineError

MOST_PROMPTS = 4096  # of one program that have not ended: sent, waiting or running
MOST_PARAMETERS = 8192
MOST_BYTES = 256 << 20  # of a frame
UNREAD_BYTES = 32 << 20  # that a program has not read: nothing more is begun until it reads on
UNREAD_SECONDS = 0.02  # between two looks at that
TARGET = "penstock_router.offline"


@dataclass(slots=True)
class Running:
    """A prompt that has not ended."""

    number: int
    arrival: float
    stream: bool
    left: int = 1  # sequences that have not ended
    sequences: dict[int, int] = field(default_factory=dict)  # index -> the engine's number


class Session:
    """See the module. `wire` is its protocol."""

    def __init__(self, service: Service, room: Semaphore) -> None:
        """room: for sequences in the engine, of all programs."""
        self.wire = _Wire(self._receive, self._lost, self._greet)
        self._service = service
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._parameters: dict[int, Wanted] = {}
        self._running: dict[int, Running] = {}
        self._waiting: asyncio.Queue[tuple[wire.Prompt, Wanted]] = asyncio.Queue()
        self._news: dict[Generated, int] = {}  # sequences of streams that have something to tell
        self._frame = wire.FromRouter()
        self._due = False
        workers = service.config.validation_workers + 1  # one encodes nothing, but hands on
        self._workers = [asyncio.create_task(self._work()) for _ in range(workers)]

    # -- what the program says --------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        try:
            frame = wire.ToRouter.FromString(data)
        except DecodeError:
            return self._cut("a frame is no message")
        for parameters in frame.parameters:
            self._parameters[parameters.number] = Wanted.of(parameters, self._service)
        if len(self._parameters) > MOST_PARAMETERS:
            return self._cut(f"more than {MOST_PARAMETERS} parameters")
        for prompt in frame.prompt:
            self._take(prompt)
        if len(self._running) > MOST_PROMPTS:
            return self._cut(f"more than {MOST_PROMPTS} prompts at a time")
        for number in frame.cancel:
            self._cancel(number)
        for number in frame.forget:
            self._parameters.pop(number, None)

    def _take(self, prompt: wire.Prompt) -> None:
        if prompt.number in self._running:
            return self._cut("a prompt has the number of another one")
        self._service.metrics.on_request()
        running = Running(prompt.number, time.monotonic(), prompt.stream)
        self._running[prompt.number] = running
        wanted = self._parameters.get(prompt.parameters)
        if wanted is None:
            fault = ApiError(Kind.VALIDATION, f"there are no parameters {prompt.parameters}")
            return self._fail(running, fault)
        if wanted.fault is not None:
            return self._fail(running, wanted.fault, parameters=True)
        self._waiting.put_nowait((prompt, wanted))

    def _cancel(self, number: int) -> None:
        """Nobody wants it any more."""
        running = self._running.pop(number, None)
        if running is not None:
            for sequence in running.sequences.values():
                self._service.engine.cancel(sequence)
                self._room.release()
            running.sequences.clear()

    def _lost(self) -> None:
        for number in list(self._running):
            self._cancel(number)
        for worker in self._workers:
            worker.cancel()

    def _cut(self, fault: str) -> None:
        log("WARNING", f"an offline client is cut: {fault}", target=TARGET)
        self.wire.abort()

    # -- prompts into sequences -------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            prompt, wanted = await self._waiting.get()
            while self.wire.unread > UNREAD_BYTES:
                await asyncio.sleep(UNREAD_SECONDS)
            running = self._running.get(prompt.number)
            if running is None:
                continue
            try:
                taken = await admitted(self._service, wanted, prompt)
                await self._begin(running, taken, wanted.detokenize)
            except ApiError as error:
                self._fail(running, error)
            except Exception as error:
                log("ERROR", f"a prompt was not taken: {error!r}", target=TARGET)
                self._fail(running, ApiError(Kind.INTERNAL))

    async def _begin(self, running: Running, taken: Admitted, detokenize: bool) -> None:
        running.left = len(taken.requests)
        ids = array("I", taken.requests[0].prompt).tobytes()
        started = self._out().started.add(prompt=running.number, ids=ids)
        if taken.text is not None:
            started.text = taken.text
        for index, request in enumerate(taken.requests):
            await self._room.acquire()
            if self._running.get(running.number) is not running:
                return self._room.release()
            service = self._service
            sequence = Generated(
                request,
                index,
                output(service, request, taken.options),
                service.text,
                detokenize=detokenize,
                on_news=partial(self._note, running) if running.stream else None,
                on_end=partial(self._ended, running),
            )
            try:
                running.sequences[index] = service.engine.submit(request, sequence)
            except EngineError as error:
                self._room.release()
                raise from_engine(error) from error

    # -- what the engine says ---------------------------------------------------------------------

    def _note(self, running: Running, sequence: Generated) -> None:
        self._news[sequence] = running.number
        self._flush_soon()

    def _ended(self, running: Running, sequence: Generated, error: EngineError | None) -> None:
        del running.sequences[sequence.index]
        self._room.release()
        if error is not None:
            return self._fail(running, from_engine(error))
        self._news.pop(sequence, None)
        self._out().piece.append(sequence.take(running.number))
        running.left -= 1
        if not running.left:
            del self._running[running.number]
            self._count(running, sequence)

    def _fail(self, running: Running, error: ApiError, parameters: bool = False) -> None:
        """The prompt ends, and what else runs of it."""
        if self._running.get(running.number) is not running:
            return
        self._cancel(running.number)
        self._service.metrics.on_failure(error.row.failure)
        invalid = error.row.status < 424
        self._out().failed.add(
            prompt=running.number,
            kind=wire.Failed.INVALID if invalid else wire.Failed.GENERATION,
            message=error.sentence,
            parameters=parameters,
        )

    def _count(self, running: Running, last: Generated) -> None:
        finish = last.ended
        assert finish is not None
        total = time.monotonic() - running.arrival
        decode = finish.total_seconds - finish.queue_seconds
        per_token = decode / max(finish.generated_tokens, 1)
        self._service.metrics.on_success(total, total - finish.total_seconds, [per_token])

    # -- frames out -------------------------------------------------------------------------------

    def _greet(self) -> None:
        service = self._service
        limits = service.engine.limits
        self._out().hello.CopyFrom(
            wire.Hello(
                most_prompts=MOST_PROMPTS,
                vocab_size=limits.vocab_size,
                max_total_tokens=limits.max_total_tokens,
                eos=sorted(service.text.eos_ids),
                sampling_defaults=orjson.dumps(dict(service.sampling_defaults)),
            )
        )

    def _out(self) -> wire.FromRouter:
        """The frame of this turn of the event loop, to be added to at once."""
        self._flush_soon()
        return self._frame

    def _flush_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._due = False
        frame, self._frame = self._frame, wire.FromRouter()
        for sequence, number in self._news.items():
            frame.piece.append(sequence.take(number))
        self._news.clear()
        self.wire.send(frame)


class _Wire(Frames):
    """Tells when it is connected, too."""

    def __init__(
        self,
        receive: Callable[[bytes], None],
        lost: Callable[[], None],
        opened: Callable[[], None],
    ) -> None:
        super().__init__(receive, lost, MOST_BYTES)
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opened()
