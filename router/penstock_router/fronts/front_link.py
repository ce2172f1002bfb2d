"""A front, as the scheduling process sees it: what it asks for, and what it is told."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock_proto.api_keys import ApiKey
from penstock_proto.front_pb2 import (
    End,
    Failure,
    FromFront,
    Preparation,
    Prepared,
    ScoredPrompt,
    Submission,
    ToFront,
)
from penstock_proto.shard_pb2 import TopTokens as WireTopTokens
from penstock_router.fronts import messages
from penstock_router.fronts.frames import BadFrame
from penstock_router.fronts.remote_ledger import wire_verdict
from penstock_router.metrics import Metrics
from penstock_router.quotas import Quotas
from penstock_router.request import EngineError, Finish, TopTokens
from penstock_router.request_wire import GRAMMAR, REQUEST

if TYPE_CHECKING:
    from penstock_router.engine import Engine


class FrontLink:
    """Hands a front's requests to the engine and collects what the engine says to it.

    What one turn of the event loop brings goes out as one frame at its end, by `send`.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        send: Callable[[ToFront], None],
        quotas: Quotas | None = None,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._send = send
        self._quotas = quotas or Quotas()
        self._loop = asyncio.get_running_loop()
        self._numbers: dict[int, int] = {}  # the front's number of a live sequence -> the engine's
        self._due = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._clear()

    def receive(self, frame: FromFront) -> None:
        """Take in a frame. Raises BadFrame."""
        try:
            self._apply(frame)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise BadFrame(f"{type(error).__name__}: {error}") from error

    def _apply(self, frame: FromFront) -> None:
        for preparation in frame.prepare:
            task = asyncio.create_task(self._prepare(preparation))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for submission in frame.submit:
            self._submit(submission)
        for stop in frame.stop:
            if (number := self._numbers.get(stop.sequence)) is not None:
                self._engine.stop(number, stop.generated)
        for sequence in frame.cancel:
            if (number := self._numbers.pop(sequence, None)) is not None:
                self._engine.cancel(number)
        for abort in frame.abort:
            self._engine.abort(None if abort.all else abort.name)
        if frame.flush:
            done = self._engine.flush_cache()
            self._last.flushed.add(number=frame.flush, done=done)
            self._flush_soon()
        self._charge(frame)
        for seconds in frame.lag:
            self._metrics.http_loop_lag.observe(seconds)
        if frame.HasField("count"):
            self._count(frame)
        if frame.scrape:
            task = self._loop.create_task(self._scrape(frame.scrape))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _scrape(self, number: int) -> None:
        text = await self._metrics.scrape()
        self._last.metrics.scrape, self._last.metrics.text = number, text
        self._flush_soon()

    def withdraw(self) -> None:
        """Tell the front that requests should go elsewhere."""
        self._last.withdrawn = True
        self._flush_soon()

    def drain(self) -> None:
        """Tell the front that new requests are turned away."""
        self._last.draining = True
        self._flush_soon()

    def trouble(self, reason: str) -> None:
        """Tell the front why nothing would be generated now, or that all is well (empty)."""
        self._last.trouble = reason
        self._flush_soon()

    def replace_keys(self, keys: Sequence[ApiKey]) -> None:
        """Tell the front the API keys that count from now on."""
        del self._last.api_key[:]
        self._last.api_key.extend(json.dumps(key.item()) for key in keys)
        self._flush_soon()

    def leave(self) -> None:
        """Tell it to end, behind everything that it has been told before."""
        self._last.leave = True
        self._flush_soon()

    def gone(self) -> None:
        """The front has ended: nobody wants what it had running."""
        for number in self._numbers.values():
            self._engine.cancel(number)
        self._numbers.clear()

    async def _prepare(self, preparation: Preparation) -> None:
        answer = Prepared(number=preparation.number)
        try:
            await self._engine.prepare(GRAMMAR.decode(preparation.grammar))
        except EngineError as error:
            answer.failure.CopyFrom(messages.failure(0, error))
        self._last.prepared.append(answer)
        self._flush_soon()

    def _submit(self, submission: Submission) -> None:
        sequence = submission.sequence
        try:
            request = REQUEST.decode(submission.request)
            number = self._engine.submit(request, RemoteListener(self, sequence))
        except EngineError as error:
            self.failed(sequence, error)
        else:
            self._numbers[sequence] = number

    def _charge(self, frame: FromFront) -> None:
        """What requests of API keys take; a front's numbers are its own."""
        verdicts = self._last.key_verdict
        for begin in frame.key_begin:
            verdict = self._quotas.begin((self, begin.number), begin.name)
            if begin.answer:
                verdicts.append(wire_verdict(begin.number, verdict))
                self._flush_soon()
        for reserve in frame.key_reserve:
            verdict = self._quotas.reserve((self, reserve.number), reserve.tokens)
            verdicts.append(wire_verdict(reserve.number, verdict))
            self._flush_soon()
        for end in frame.key_settle:
            self._quotas.settle((self, end.number), end.prompt, end.generated)

    def _count(self, frame: FromFront) -> None:
        metrics, count = self._metrics, frame.count
        if count.looked:
            metrics.on_look()
        metrics.request_count.inc(count.requests)
        metrics.disconnects.inc(count.disconnects)
        metrics.slow_readers.inc(count.slow_readers)
        metrics.on_unsent(count.unsent)
        for served in count.served:
            metrics.on_success(served.total, served.validation, served.per_token)
        for reason in count.failed:
            metrics.request_failure[reason].inc()

    # -- what the engine says --------------------------------------------------------------------

    def prompt(
        self,
        sequence: int,
        logprobs: Sequence[float | None],
        tops: Sequence[TopTokens],
        ranks: Sequence[int],
    ) -> None:
        """Log-probabilities of a prompt."""
        self._prompts.append(messages.scored_prompt(sequence, logprobs, tops, ranks))
        self._flush_soon()

    def token(self, sequence: int, token: int, logprob: float, top: TopTokens, rank: int) -> None:
        """A token of a sequence."""
        if top:
            tokens, logprobs = zip(*top, strict=True)
            row = len(self._tokens)
            self._tops.append(WireTopTokens(row=row, token=tokens, logprob=logprobs))
        self._sequences.append(sequence)
        self._tokens.append(token)
        self._logprobs.append(logprob)
        self._ranks.append(rank)
        self._flush_soon()

    def finished(self, sequence: int, finish: Finish) -> None:
        """The end of a sequence."""
        del self._numbers[sequence]
        self._ends.append(messages.end(sequence, finish))
        self._flush_soon()

    def failed(self, sequence: int, error: EngineError) -> None:
        """A sequence will not be finished, or was not taken at all."""
        self._numbers.pop(sequence, None)
        self._failures.append(messages.failure(sequence, error))
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
            rank=self._ranks if asked else (),
            end=self._ends,
            failure=self._failures,
        )
        frame.MergeFrom(self._last)
        self._due = False
        self._clear()
        self._send(frame)

    def _clear(self) -> None:
        self._prompts: list[ScoredPrompt] = []
        self._sequences: list[int] = []
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._ranks: list[int] = []
        self._tops: list[WireTopTokens] = []
        self._ends: list[End] = []
        self._failures: list[Failure] = []
        self._last = ToFront()  # what is not of sequences


class RemoteListener:
    """The engine's listener of one sequence whose real listener is in a front."""

    __slots__ = ("_link", "_sequence")

    def __init__(self, link: FrontLink, sequence: int) -> None:
        self._link = link
        self._sequence = sequence

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        self._link.prompt(self._sequence, logprobs, tops, ranks)

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        self._link.token(self._sequence, token_id, logprob, top, rank)
        return False  # the front looks for stop sequences

    def finish(self, finish: Finish) -> None:
        self._link.finished(self._sequence, finish)

    def fail(self, error: EngineError) -> None:
        self._link.failed(self._sequence, error)
