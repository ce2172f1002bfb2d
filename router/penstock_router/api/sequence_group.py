"""The sequences that one HTTP request has running."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from penstock_router.api.awakening import Awakening
from penstock_router.api.errors import ApiError, from_engine
from penstock_router.api.interface import Engine
from penstock_router.api.output import Output
from penstock_router.api.quota import Lease
from penstock_router.request import EngineError, Finish, GenerationRequest, TopTokens
from penstock_router.top_table import TopTable


class SequenceGroup:
    """Submits sequences and waits for all of them; whatever is left is cancelled on leaving.

    with SequenceGroup(engine, awakening, client) as group:
        group.submit(listeners)
        await group.ended
    """

    def __init__(
        self, engine: Engine, awakening: Awakening, client: str, lease: Lease | None = None
    ) -> None:
        """awakening: of whoever waits for the end, on behalf of a client. lease: what is generated
        is counted for its key."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._engine = engine
        self._awakening, self._client = awakening, client
        self._lease = lease
        self._generated = 0  # by sequences that have ended
        self._ids: list[int] = []
        self._remaining = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for request_id in self._ids:
            self._generated += self._engine.cancel(request_id)
        if self._lease is not None:
            self._lease.generated += self._generated
        if self.ended.done() and not self.ended.cancelled():
            self.ended.exception()  # seen, even if nobody waited for it

    def submit(self, listeners: Iterable[SequenceListener]) -> None:
        """Hand the sequences to the engine. Raises ApiError when it takes none."""
        for listener in listeners:
            self.expect(1)
            self.submit_expected(listener)

    def expect(self, count: int) -> None:
        """So many sequences will be submitted; it has not ended before they have."""
        self._remaining += count

    def submit_expected(self, listener: SequenceListener) -> None:
        """Hand one of them to the engine. Raises ApiError when it takes none."""
        listener.group = self
        try:
            guarded = _Guarded(listener, self)
            self._ids.append(self._engine.submit(listener.request, guarded))
        except EngineError as error:
            raise from_engine(error) from error

    def one_ended(self, generated: int) -> None:
        """A sequence ended as it should, and has so many tokens."""
        self._generated += generated
        self._remaining -= 1
        if not self._remaining:
            self._awakening.wake(self.ended, self._client)

    def fail(self, error: ApiError) -> None:
        """A sequence failed, and with it the HTTP request."""
        if not self.ended.done():
            self.ended.set_exception(error)

    def broke(self, error: Exception) -> None:
        """A listener raised, which is a fault of ours: whoever waits for the end gets it."""
        if not self.ended.done():
            fault = RuntimeError("a listener raised")  # a future takes no StopIteration
            fault.__cause__ = error
            self.ended.set_exception(fault)


class _Guarded:
    """A listener whose faults end its own request. In the engine they would end the server."""

    __slots__ = ("_group", "_listener")

    def __init__(self, listener: SequenceListener, group: SequenceGroup) -> None:
        self._listener = listener
        self._group = group

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        try:
            self._listener.prompt(logprobs, tops, ranks)
        except Exception as error:
            self._group.broke(error)

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        try:
            return self._listener.token(token_id, logprob, top, rank)
        except Exception as error:
            self._group.broke(error)
            return True  # nobody wants more of it

    def finish(self, finish: Finish) -> None:
        try:
            self._listener.finish(finish)
        except Exception as error:
            self._group.broke(error)

    def fail(self, error: EngineError) -> None:
        try:
            self._listener.fail(error)
        except Exception as fault:
            self._group.broke(fault)


class SequenceListener:
    """A sequence on its way: the listener of the engine. Base of what streams and what collects."""

    group: SequenceGroup
    end: Finish

    def __init__(self, request: GenerationRequest, output: Output) -> None:
        self.request = request
        self.output = output

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        """Only listeners that asked for it keep it."""

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        raise NotImplementedError

    def finish(self, finish: Finish) -> None:
        self.end = finish
        self.group.one_ended(finish.generated_tokens)

    def fail(self, error: EngineError) -> None:
        self.group.fail(from_engine(error))


class Collector(SequenceListener):
    """Keeps everything until the end, for answers that are sent at once."""

    def __init__(self, request: GenerationRequest, output: Output) -> None:
        super().__init__(request, output)
        self.ids: list[int] = []
        self.texts: list[str] = []  # of each token, as `Output.push` says
        self.logprobs: list[float] = []
        self.tops = TopTable()
        self.prompt_logprobs: Sequence[float | None] = ()
        self.prompt_tops: Sequence[TopTokens] = ()
        self.prompt_ranks: Sequence[int] = ()
        self.text = ""
        self._pieces: list[str] = []
        self._rest = ""

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        self.prompt_logprobs = logprobs
        self.prompt_tops = tops
        self.prompt_ranks = ranks

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        output = self.output
        self.ids.append(token_id)
        self.texts.append(output.push(token_id))
        self.logprobs.append(logprob)
        self.tops.append(top)
        self._pieces.append(output.released)
        return output.stopped

    def finish(self, finish: Finish) -> None:
        self._rest = self.output.close()
        self._pieces.append(self.output.released)
        self.text = "".join(self._pieces)
        super().finish(finish)

    @property
    def closed_texts(self) -> list[str]:
        """Those of each token at the end: the last one that is text has what `close` said."""
        texts = self.texts.copy()
        if self._rest:
            special = self.output.special_ids
            texts[max(row for row, i in enumerate(self.ids) if i not in special)] += self._rest
        return texts

    @property
    def mean_logprob(self) -> float:
        """By which the best of several sequences is chosen."""
        return sum(self.logprobs) / max(len(self.logprobs), 1)
