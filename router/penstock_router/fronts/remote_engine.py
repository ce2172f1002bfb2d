"""The engine and its metrics, as a front sees them."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence

from google.protobuf.message import DecodeError

from penstock_proto.api_keys import ApiKey
from penstock_proto.front_pb2 import (
    End,
    Flushed,
    FromFront,
    KeyVerdict,
    Prepared,
    Served,
    ToFront,
)
from penstock_router.fronts import messages
from penstock_router.fronts.frames import BadFrame
from penstock_router.grammar import Grammar
from penstock_router.instruments import Failure
from penstock_router.limits import ServerLimits
from penstock_router.request import Draining, Finish, FinishReason, GenerationRequest, Listener
from penstock_router.request_wire import GRAMMAR, REQUEST


@dataclasses.dataclass(slots=True)
class _Live:
    """A sequence that has not ended."""

    listener: Listener
    generated: int = 0
    stopped: bool = False  # its text has ended; the engine does not know yet, or not in time


class Outbox:
    """The frame that this turn of the event loop fills; `send` sends it at the turn's end."""

    def __init__(self, send: Callable[[FromFront], None]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._frame = FromFront()
        self._due = False

    @property
    def frame(self) -> FromFront:
        """To be changed at once."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._flush)
        return self._frame

    def _flush(self) -> None:
        frame, self._frame = self._frame, FromFront()
        self._due = False
        self._send(frame)


class RemoteEngine:
    """Runs requests in the scheduling process; `api.interface.Engine` for the API of a front.

    `receive` takes the frames that come from there.
    """

    def __init__(self, limits: ServerLimits, outbox: Outbox) -> None:
        self.limits = limits
        self.withdrawn = False
        self.draining = False
        self._trouble = ""
        self.leave = asyncio.Event()  # the scheduling process is about to end
        self.on_metrics: Callable[[int, bytes], None] = lambda scrape, text: None
        self.on_keys: Callable[[tuple[ApiKey, ...]], None] = lambda keys: None
        self.on_verdict: Callable[[KeyVerdict], None] = lambda verdict: None
        self._outbox = outbox
        self._numbers = itertools.count(1)
        self._live: dict[int, _Live] = {}
        self._flushes: dict[int, asyncio.Future[bool]] = {}
        self._preparing: dict[int, asyncio.Future[None]] = {}

    @property
    def trouble(self) -> str:
        """Why nothing would be generated now; without shards all processes leave at once."""
        return "the server ends" if self.leave.is_set() else self._trouble

    async def prepare(self, grammar: Grammar) -> None:
        """Have a grammar compiled; see `Engine.prepare`."""
        number = next(self._numbers)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._preparing[number] = answer
        self._outbox.frame.prepare.add(number=number, grammar=GRAMMAR.encode(grammar))
        try:
            await answer
        finally:
            del self._preparing[number]

    def submit(self, request: GenerationRequest, listener: Listener) -> int:
        """Queue a request; its number is for `cancel`. Raises Draining."""
        if self.draining:
            raise Draining("The server is shutting down")
        number = next(self._numbers)
        self._live[number] = _Live(listener)
        self._outbox.frame.submit.add(sequence=number, request=REQUEST.encode(request))
        return number

    def cancel(self, request_id: int) -> int:
        """End a request without a word to its listener. How many tokens have come of it; 0 after
        its end."""
        live = self._live.pop(request_id, None)
        if live is None:
            return 0
        self._outbox.frame.cancel.append(request_id)
        return live.generated

    def abort(self, name: str | None) -> None:
        """End requests of that name, or all, wherever they came in; their listeners are told."""
        self._outbox.frame.abort.add(name=name or "", all=name is None)

    async def empty_cache(self) -> bool:
        """Forget all cached prefixes. False, and nothing is done, where anything runs or waits."""
        number = next(self._numbers)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._flushes[number] = answer
        self._outbox.frame.flush = number
        try:
            return await answer
        finally:
            self._flushes.pop(number, None)

    def receive(self, data: bytes) -> None:
        """Take in a frame. Raises BadFrame."""
        try:
            self._apply(ToFront.FromString(data))
        except (ArithmeticError, DecodeError, LookupError, TypeError, ValueError) as error:
            raise BadFrame(f"{type(error).__name__}: {error}") from error

    def _apply(self, frame: ToFront) -> None:
        for scored in frame.prompt:
            if live := self._live.get(scored.sequence):
                live.listener.prompt(*messages.scores_of(scored))
        if frame.token:
            self._tokens(frame)
        for end in frame.end:
            if live := self._live.pop(end.sequence, None):
                live.listener.finish(_finish(end, live))
        # One whose text is complete may still fail: its end, with its figures, was not to come.
        for failure in frame.failure:
            if live := self._live.pop(failure.sequence, None):
                live.listener.fail(messages.error_of(failure))
        for prepared in frame.prepared:
            self._take_prepared(prepared)
        if frame.HasField("metrics"):
            self.on_metrics(frame.metrics.scrape, frame.metrics.text)
        for flushed in frame.flushed:
            self._flushed(flushed)
        if frame.HasField("trouble"):
            self._trouble = frame.trouble
        if frame.api_key:
            self.on_keys(tuple(ApiKey.of(json.loads(item)) for item in frame.api_key))
        for verdict in frame.key_verdict:
            self.on_verdict(verdict)
        self.withdrawn |= frame.withdrawn or frame.draining
        self.draining |= frame.draining
        if frame.leave:
            self.leave.set()

    def _flushed(self, flushed: Flushed) -> None:
        # Of several that asked in one turn only the last one's number was sent.
        for asked, answer in self._flushes.items():
            if asked <= flushed.number and not answer.done():
                answer.set_result(flushed.done)

    def _take_prepared(self, prepared: Prepared) -> None:
        answer = self._preparing.get(prepared.number)
        if answer is None or answer.done():
            return
        if prepared.HasField("failure"):
            answer.set_exception(messages.error_of(prepared.failure))
        else:
            answer.set_result(None)

    def _tokens(self, frame: ToFront) -> None:
        logprobs, ranks = frame.logprob, frame.rank
        tops = {top.row: list(zip(top.token, top.logprob, strict=True)) for top in frame.top}
        # Lists: protobuf's own take 0.2 us for each look at an element.
        tokens = zip(list(frame.sequence), list(frame.token), strict=True)
        for row, (number, token) in enumerate(tokens):
            live = self._live.get(number)
            if live is None or live.stopped:
                continue
            live.generated += 1
            logprob = logprobs[row] if logprobs else math.nan
            rank = ranks[row] if ranks else 0
            if live.listener.token(token, logprob, tops.get(row, ()), rank):
                live.stopped = True
                self._outbox.frame.stop.add(sequence=number, generated=live.generated)


class RemoteMetrics:
    """Counts in the scheduling process; `api.interface.Metrics` for the API of a front."""

    def __init__(self, engine: RemoteEngine, outbox: Outbox) -> None:
        self._outbox = outbox
        self._numbers = itertools.count(1)
        self._scrapes: dict[int, asyncio.Future[bytes]] = {}
        engine.on_metrics = self._scraped

    def on_look(self) -> None:
        self._outbox.frame.count.looked = True

    def on_request(self) -> None:
        self._outbox.frame.count.requests += 1

    def on_success(self, total: float, validation: float, per_token: Sequence[float]) -> None:
        served = Served(total=total, validation=validation, per_token=per_token)
        self._outbox.frame.count.served.append(served)

    def on_failure(self, reason: Failure) -> None:
        self._outbox.frame.count.failed.append(reason)

    def on_disconnect(self) -> None:
        self._outbox.frame.count.disconnects += 1

    def on_slow_reader(self) -> None:
        self._outbox.frame.count.slow_readers += 1

    def on_unsent(self, change: int) -> None:
        self._outbox.frame.count.unsent += change

    async def scrape(self) -> bytes:
        number = next(self._numbers)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._scrapes[number] = answer
        self._outbox.frame.scrape = number
        try:
            return await answer
        finally:
            self._scrapes.pop(number, None)

    def _scraped(self, number: int, text: bytes) -> None:
        # Of several that asked in one turn only the last one's number was sent.
        for asked, answer in self._scrapes.items():
            if asked <= number and not answer.done():
                answer.set_result(text)


def _finish(end: End, live: _Live) -> Finish:
    """The end as the client gets it: where its text ended, though more was generated.

    A stop sequence that ends with the last token is a stop all the same, but for EOS.
    """
    finish = messages.finish_of(end)
    at_eos = finish.reason is FinishReason.EOS and finish.generated_tokens == live.generated
    if not live.stopped or at_eos:
        return finish
    return dataclasses.replace(finish, reason=FinishReason.STOP, generated_tokens=live.generated)
