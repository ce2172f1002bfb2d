"""Which grammars the router keeps: those that sequences need, and the last ones used."""

from __future__ import annotations

import asyncio

import pytest

from penstock_proto.shard_pb2 import CompileRequest, CompileResponse
from penstock_router.exposition import Registry
from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.grammar_metrics import GrammarMetrics
from penstock_router.grammars import MOST_IDLE, MOST_IDLE_SECONDS, MOST_WAITING, Grammars
from penstock_router.request import BadGrammar, GenerationFailed, GrammarsBusy
from penstock_router.structured.longest_run import MOST_FORCED


def grammar(number: int) -> Grammar:
    return Grammar(GrammarKind.REGEX, f"a{{{number}}}")


class Shard:
    """Compiles what it is given, and remembers."""

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.forcing_much: list[bool] = []
        self.running = self.most = 0
        self.together: asyncio.Barrier | None = None  # so many at once, or none goes on
        self.outcome, self.seconds = CompileResponse.READY, 0.0

    async def compile(self, request: CompileRequest) -> CompileResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        await (asyncio.sleep(0) if self.together is None else self.together.wait())
        self.running -= 1
        self.compiled.append(request.grammar.text)
        self.forcing_much.append(request.forces_much)
        return CompileResponse(outcome=self.outcome, error="no", seconds=self.seconds)


def make() -> tuple[Grammars, Shard, GrammarMetrics]:
    shard, metrics = Shard(), GrammarMetrics(Registry())
    return Grammars(shard.compile, metrics), shard, metrics


async def test_equal_grammars_are_compiled_once() -> None:
    grammars, shard, _ = make()
    shard.together = asyncio.Barrier(2)
    async with asyncio.timeout(60):
        await asyncio.gather(*(grammars.prepare(grammar(n % 4)) for n in range(40)))
    assert sorted(shard.compiled) == ["a{0}", "a{1}", "a{2}", "a{3}"]
    assert shard.most == 2


async def test_what_may_force_much_is_said() -> None:
    """So that the shards do not look for it."""
    grammars, shard, _ = make()
    for number in (10, MOST_FORCED + 1):
        await grammars.prepare(grammar(number))
    assert shard.forcing_much == [False, True]


async def test_what_is_held_is_not_forgotten() -> None:
    grammars, _, _ = make()
    await grammars.prepare(grammar(0))
    held, _ = grammars.hold(grammar(0))
    for number in range(1, MOST_IDLE + 10):
        await grammars.prepare(grammar(number))
    forgotten = grammars.pop_forgotten()
    assert len(forgotten) == 9 and held not in forgotten
    grammars.drop(grammar(0))
    assert grammars.pop_forgotten() == [held], "the one used longest ago"
    with pytest.raises(GenerationFailed):
        grammars.hold(grammar(0))
    assert len(grammars) == MOST_IDLE


async def test_few_are_kept_that_take_long() -> None:
    """Which are large."""
    grammars, shard, _ = make()
    shard.seconds = 1.5
    for number in range(50):
        await grammars.prepare(grammar(number))
    assert len(grammars) == MOST_IDLE_SECONDS / 1.5
    assert len(grammars.pop_forgotten()) == 50 - len(grammars)


async def test_what_is_refused_may_be_asked_for_again() -> None:
    grammars, shard, metrics = make()
    for outcome, error in (
        (CompileResponse.REFUSED, BadGrammar),
        (CompileResponse.TOO_SLOW, BadGrammar),
        (CompileResponse.BUSY, GrammarsBusy),
    ):
        shard.outcome = outcome
        with pytest.raises(error):
            await grammars.prepare(grammar(1))
    shard.outcome = CompileResponse.READY
    await grammars.prepare(grammar(1))
    assert len(shard.compiled) == 4 and len(grammars) == 1
    assert {name: counter.value for name, counter in metrics.preparations.items()} == {
        "cached": 0, "compiled": 1, "refused": 1, "too_slow": 1, "busy": 1
    }  # fmt: skip


async def test_too_many_at_once_are_turned_away() -> None:
    grammars, _, _ = make()
    asked = [grammars.prepare(grammar(n)) for n in range(MOST_WAITING + 5)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(a) for a in answers if a is not None] == [GrammarsBusy] * 5


async def test_one_who_leaves_ends_nobody_elses_wait() -> None:
    grammars, _, _ = make()
    first = asyncio.create_task(grammars.prepare(grammar(1)))
    second = asyncio.create_task(grammars.prepare(grammar(1)))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert grammars.hold(grammar(1)) == (1, [])
