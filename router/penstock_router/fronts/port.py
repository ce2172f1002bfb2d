"""A front, as the scheduling process sees it: what it asks for, and what it is told."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock_proto.front_pb2 import End, Failure, FromFront, ScoredPrompt, Submission, ToFront
from penstock_proto.shard_pb2 import TopTokens as WireTopTokens
from penstock_router.metrics import Metrics
from penstock_router.request import (
    Draining,
    EngineError,
    Finish,
    FinishReason,
    GenerationRequest,
    ShuttingDown,
    TopTokens,
)
from penstock_router.wire import sampling_of

if TYPE_CHECKING:
    from penstock_router.engine import Engine

REASONS = {
    FinishReason.LENGTH: End.LENGTH,
    FinishReason.EOS: End.EOS,
    FinishReason.STOP: End.STOP,
}


class Port:
    """Hands a front's requests to the engine and collects what the engine says to it.

    What one turn of the event loop brings goes out as one frame at its end. `send` is what sends
    it; `on_ready` is called when the front takes connections.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        send: Callable[[ToFront], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._send = send
        self._on_ready = on_ready
        self._loop = asyncio.get_running_loop()
        self._numbers: dict[int, int] = {}  # the front's number of a live sequence -> the engine's
        self._due = False
        self._clear()

    def receive(self, data: bytes) -> None:
        """Take in a frame."""
        frame = FromFront.FromString(data)
        if frame.ready:
            self._on_ready()
        for submission in frame.submit:
            self._submit(submission)
        for stop in frame.stop:
            if (number := self._numbers.get(stop.sequence)) is not None:
                self._engine.stop(number, stop.generated)
        for sequence in frame.cancel:
            if (number := self._numbers.pop(sequence, None)) is not None:
                self._engine.cancel(number)
        if frame.HasField("count"):
            self._count(frame)
        if frame.scrape:
            message = ToFront()
            message.metrics.scrape = frame.scrape
            message.metrics.text = self._metrics.render()
            self._send(message)

    def gone(self) -> None:
        """The front is dead: nobody wants what it had running."""
        for number in self._numbers.values():
            self._engine.cancel(number)
        self._numbers.clear()

    def _submit(self, submission: Submission) -> None:
        sequence = submission.sequence
        try:
            number = self._engine.submit(request_of(submission), Echo(self, sequence))
        except EngineError as error:
            self.failed(sequence, error)
        else:
            self._numbers[sequence] = number

    def _count(self, frame: FromFront) -> None:
        metrics, count = self._metrics, frame.count
        metrics.request_count.inc(count.requests)
        metrics.disconnects.inc(count.disconnects)
        metrics.slow_readers.inc(count.slow_readers)
        for served in count.served:
            metrics.on_success(served.total, served.validation, served.per_token)
        for reason in count.failed:
            metrics.request_failure[reason].inc()

    # -- what the engine says --------------------------------------------------------------------

    def prompt(self, sequence: int, logprobs: Sequence[float | None]) -> None:
        """Log-probabilities of a prompt."""
        values = [math.nan if value is None else value for value in logprobs]
        self._prompts.append(ScoredPrompt(sequence=sequence, logprob=values))
        self._flush_soon()

    def token(self, sequence: int, token: int, logprob: float, top: TopTokens) -> None:
        """A token of a sequence."""
        if top:
            tokens, logprobs = zip(*top, strict=True)
            row = len(self._tokens)
            self._tops.append(WireTopTokens(row=row, token=tokens, logprob=logprobs))
        self._sequences.append(sequence)
        self._tokens.append(token)
        self._logprobs.append(logprob)
        self._flush_soon()

    def finished(self, sequence: int, finish: Finish) -> None:
        """The end of a sequence."""
        del self._numbers[sequence]
        self._ends.append(
            End(
                sequence=sequence,
                reason=REASONS[finish.reason],
                generated=finish.generated_tokens,
                cached=finish.cached_tokens,
                queue=finish.queue_seconds,
                first_token=finish.first_token_seconds,
                total=finish.total_seconds,
            )
        )
        self._flush_soon()

    def failed(self, sequence: int, error: EngineError) -> None:
        """A sequence will not be finished, or was not taken at all."""
        self._numbers.pop(sequence, None)
        kind = Failure.GENERATION
        if isinstance(error, Draining):
            kind = Failure.DRAINING
        elif isinstance(error, ShuttingDown):
            kind = Failure.SHUT_DOWN
        self._failures.append(Failure(sequence=sequence, kind=kind, message=str(error)))
        self._flush_soon()

    # -- frames out ------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        asked = not all(map(math.isnan, self._logprobs))
        frame = ToFront(
            prompt=self._prompts,
            sequence=self._sequences,
            token=self._tokens,
            logprob=self._logprobs if asked else (),
            top=self._tops,
            end=self._ends,
            failure=self._failures,
        )
        self._due = False
        self._clear()
        self._send(frame)

    def _clear(self) -> None:
        self._prompts: list[ScoredPrompt] = []
        self._sequences: list[int] = []
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._tops: list[WireTopTokens] = []
        self._ends: list[End] = []
        self._failures: list[Failure] = []


class Echo:
    """The engine's listener of one sequence whose real listener is in a front."""

    __slots__ = ("_port", "_sequence")

    def __init__(self, port: Port, sequence: int) -> None:
        self._port = port
        self._sequence = sequence

    def prompt(self, logprobs: Sequence[float | None]) -> None:
        self._port.prompt(self._sequence, logprobs)

    def token(self, token_id: int, logprob: float, top: TopTokens) -> bool:
        self._port.token(self._sequence, token_id, logprob, top)
        return False  # the front looks for stop sequences

    def finish(self, finish: Finish) -> None:
        self._port.finished(self._sequence, finish)

    def fail(self, error: EngineError) -> None:
        self._port.failed(self._sequence, error)


def request_of(submission: Submission) -> GenerationRequest:
    """The request as the engine takes it; `RemoteEngine` made the message of an equal one."""
    return GenerationRequest(
        prompt=array("I", submission.prompt),
        max_new_tokens=submission.max_new_tokens,
        sampling=sampling_of(submission.sampling),
        ignore_eos=submission.ignore_eos,
        prompt_logprobs=submission.prompt_logprobs,
        priority=submission.priority,
        tenant=submission.tenant,
    )
