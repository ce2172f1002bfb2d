"""Grammars that the shards have compiled: the router gives them ids, counts who needs them, and
says which may be forgotten."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from penstock_proto.shard_pb2 import CompileRequest, CompileResponse
from penstock_router.grammar import Grammar
from penstock_router.grammar_metrics import GrammarMetrics
from penstock_router.request import BadGrammar, GenerationFailed, GrammarsBusy
from penstock_router.request_wire import GRAMMAR
from penstock_router.structured.longest_run import MOST_FORCED, longest_run
from penstock_router.structured.multiples import check_multiples
from penstock_router.structured.places import with_places

MOST_IDLE = 256  # that no sequence needs: one takes 1 to 2 MiB of the shard's memory
MOST_IDLE_CHARACTERS = 4 << 20  # of them together
MOST_IDLE_SECONDS = 30.0  # to compile them together: the largest make 100 MiB a second
AT_ONCE = 2  # compiles, as many as the shard has threads for
MOST_WAITING = 64  # for their turn

Compile = Callable[[CompileRequest], Awaitable[CompileResponse]]


@dataclass(slots=True)
class _Entry:
    """A grammar that the shards have."""

    id: int
    opening: list[int]  # tokens that all of its texts begin with
    seconds: float  # that it took to compile
    holders: int = 0  # sequences that wait or run


class Grammars:
    """Those of one engine. Everything happens on the event loop's thread."""

    def __init__(self, compile: Compile, metrics: GrammarMetrics) -> None:
        self._compile, self._metrics = compile, metrics
        self._ids = itertools.count(1)
        self._entries: dict[Grammar, _Entry] = {}  # the one used longest ago first
        self._compiling: dict[Grammar, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._forgotten: list[int] = []

    def __len__(self) -> int:
        """How many are compiled."""
        return len(self._entries)

    async def prepare(self, grammar: Grammar) -> None:
        """Have a grammar compiled; those who ask for one that is being compiled share it.

        Raises BadGrammar, and GrammarsBusy when too many are asked for at once.
        """
        if (entry := self._entries.pop(grammar, None)) is not None:
            self._entries[grammar] = entry
            self._metrics.on_prepared("cached")
            return
        task = self._compiling.get(grammar)
        if task is None:
            if len(self._compiling) >= MOST_WAITING:
                raise GrammarsBusy("too many grammars are waiting to be compiled")
            task = asyncio.create_task(self._prepare(grammar))
            self._compiling[grammar] = task
            task.add_done_callback(lambda done: self._compiled(grammar, done))
        # One who leaves ends nobody's wait but his own.
        await asyncio.shield(task)

    def _compiled(self, grammar: Grammar, done: asyncio.Task[None]) -> None:
        del self._compiling[grammar]
        if not done.cancelled():
            done.exception()  # nobody may be left who takes it

    async def _prepare(self, grammar: Grammar) -> None:
        number = next(self._ids)
        async with self._turns:
            # Python reads all of a grammar for this, which the event loop need not wait for.
            longest = await asyncio.to_thread(_measured, grammar)
            request = CompileRequest(
                id=number, grammar=GRAMMAR.encode(grammar), forces_much=longest > MOST_FORCED
            )
            response = await self._compile(request)
        outcomes = CompileResponse
        self._metrics.on_compile(response.seconds)
        if response.outcome == outcomes.BUSY:
            self._metrics.on_prepared("busy")
            raise GrammarsBusy("other grammars are being compiled")
        if response.outcome != outcomes.READY:
            late = response.outcome == outcomes.TOO_SLOW
            self._metrics.on_prepared("too_slow" if late else "refused")
            raise BadGrammar(await asyncio.to_thread(with_places, response.error, grammar))
        self._metrics.on_prepared("compiled")
        self._entries[grammar] = _Entry(number, list(response.forced), response.seconds)
        self._forget_some()

    def hold(self, grammar: Grammar) -> tuple[int, Sequence[int]]:
        """A sequence needs it from now on; its id, and the tokens that its texts begin with.

        Raises GenerationFailed for one that was prepared so long ago that it is forgotten.
        """
        entry = self._entries.get(grammar)
        if entry is None:
            raise GenerationFailed("the grammar was forgotten before its turn came: try again")
        entry.holders += 1
        return entry.id, entry.opening

    def drop(self, grammar: Grammar) -> None:
        """One sequence less needs it."""
        self._entries[grammar].holders -= 1
        self._forget_some()

    def _forget_some(self) -> None:
        """Let go of those used longest ago; a request may be about to need the last one."""
        idle = [grammar for grammar, entry in self._entries.items() if not entry.holders]
        characters = sum(len(grammar.text) for grammar in idle)
        seconds = sum(self._entries[grammar].seconds for grammar in idle)
        for count, grammar in zip(range(len(idle), 1, -1), idle, strict=False):
            fits = characters <= MOST_IDLE_CHARACTERS and seconds <= MOST_IDLE_SECONDS
            if count <= MOST_IDLE and fits:
                break
            entry = self._entries.pop(grammar)
            characters -= len(grammar.text)
            seconds -= entry.seconds
            self._forgotten.append(entry.id)
        self._metrics.cached.set(len(self._entries))

    def pop_forgotten(self) -> list[int]:
        """Ids that no command names any more, since the last call."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten


def _measured(grammar: Grammar) -> float:
    """The longest run of characters that a grammar may force. Raises BadGrammar for one that would
    be compiled without an end."""
    check_multiples(grammar)
    return longest_run(grammar)
