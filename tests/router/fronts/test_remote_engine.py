"""Engine and listeners on either side of a socket: random schedules, and what always holds.

The engine generates when the test says so, and either side can be deaf for a while, so that every
message crosses with every other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_proto.front_pb2 import ToFront
from penstock_router.metrics import Metrics
from penstock_router.request import (
    Draining,
    EngineError,
    Finish,
    FinishReason,
    GenerationFailed,
    GenerationRequest,
    Listener,
    Sampling,
    ShuttingDown,
    TopTokens,
)
from support.fake_engine import EOS, FakeEngine, Job
from support.joined_front import JoinedFront, joined_front

NEVER = 60


@dataclass
class Heard:
    """A listener that insists on the order, and the fate that its request is bound for."""

    length: int
    eos_at: int  # the how-manieth token is EOS
    stop_at: int  # the text is complete with this one
    asks_prompt: bool
    number: int = 0  # at the front
    tokens: list[int] = field(default_factory=list)
    prompts: int = 0
    end: Finish | EngineError | None = None
    cancelled: bool = False

    def request(self, index: int) -> GenerationRequest:
        """Its prompt tells the engine who it is."""
        return GenerationRequest(
            (index % 500, index // 500, self.eos_at),
            self.length,
            sampling=Sampling(logprobs=index % 3 == 0, top_n=index % 2),
            prompt_logprobs=self.asks_prompt,
        )

    def prompt(self, logprobs: Sequence[float | None]) -> None:
        self._check()
        assert not self.tokens and not self.prompts
        assert list(logprobs) == [None, -0.5, -0.5]
        self.prompts += 1

    def token(self, token_id: int, logprob: float, top: TopTokens) -> bool:
        self._check()
        assert len(self.tokens) < self.stop_at, "a token after the text was complete"
        assert self.prompts == self.asks_prompt
        self.tokens.append(token_id)
        return len(self.tokens) == self.stop_at

    def finish(self, finish: Finish) -> None:
        self._check()
        self.end = finish

    def fail(self, error: EngineError) -> None:
        self._check()
        self.end = error

    def _check(self) -> None:
        assert not self.cancelled, "something after a cancel"
        assert self.end is None, "something after the end"


def generated(prompt: Sequence[int]) -> list[int]:
    """What the engine generates for a request, if nobody ends it."""
    tokens = [10 + (prompt[0] * 31 + prompt[1] * 7 + place) % 600 for place in range(NEVER + 1)]
    tokens[prompt[2] - 1] = EOS
    return tokens


@dataclass
class DrivenEngine(FakeEngine):
    """Generates what `generated` says, a token when told."""

    hold: bool = True
    failed: dict[int, int] = field(default_factory=dict)  # index -> tokens sent before

    def submit(self, request: GenerationRequest, listener: Listener) -> int:
        number = super().submit(request, listener)
        self.jobs[-1].tokens = generated(request.prompt)
        return number

    @property
    def open(self) -> list[Job]:
        return [job for job in self.jobs if not job.ended and not job.cancelled]

    def step(self, job: Job) -> None:
        if job.sent == 0 and job.request.prompt_logprobs:
            job.listener.prompt([None, *(-0.5 for _ in job.request.prompt[1:])])
        self._step(job)

    def fail(self, job: Job, error: EngineError) -> None:
        job.ended = True
        self.failed[index_of(job)] = job.sent
        job.listener.fail(error)


def index_of(job: Job) -> int:
    return job.request.prompt[0] + 500 * job.request.prompt[1]


class World:
    """Both sides, and what a schedule does to them."""

    def __init__(self, engine: DrivenEngine, front: JoinedFront) -> None:
        self.engine = engine
        self.front = front
        self.heard: list[Heard] = []
        self.refused = 0

    async def do(self, name: str, *values: Any) -> None:
        result = getattr(self, name)(*values)
        if asyncio.iscoroutine(result):
            await result

    def submit(self, length: int, eos_at: int, stop_at: int, asks_prompt: bool) -> None:
        heard = Heard(length, eos_at, stop_at, asks_prompt)
        request = heard.request(len(self.heard))
        try:
            heard.number = self.front.engine.submit(request, heard)
        except Draining:
            self.refused += 1
        else:
            self.heard.append(heard)

    def generate(self, place: int, count: int) -> None:
        if jobs := self.engine.open:
            job = jobs[place % len(jobs)]
            for _ in range(count):
                if not job.ended:
                    self.engine.step(job)

    def generate_all(self) -> None:
        for job in self.engine.open:
            self.engine.step(job)

    def cancel(self, place: int) -> None:
        if self.heard:
            heard = self.heard[place % len(self.heard)]
            self.front.engine.cancel(heard.number)
            heard.cancelled |= heard.end is None

    def fail(self, place: int) -> None:
        if jobs := self.engine.open:
            self.engine.fail(jobs[place % len(jobs)], GenerationFailed("shard 1 is gone"))

    def drain(self) -> None:
        self.engine.draining = True
        self.front.port_frames.send(ToFront(draining=True))

    def deaf(self, front: bool) -> None:
        self._transport(front).pause_reading()

    def hear(self, front: bool) -> None:
        self._transport(front).resume_reading()

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    def _transport(self, front: bool) -> Any:
        frames = self.front.front_frames if front else self.front.port_frames
        return frames._transport

    async def settle(self) -> None:
        """Everything is heard, and what still runs is run to its end."""
        for side in (True, False):
            with contextlib.suppress(RuntimeError):
                self.hear(side)
        async with asyncio.timeout(2):
            await self.front.round_trip()
            unwanted = [job for job in self.engine.open if self.heard[index_of(job)].cancelled]
            assert not unwanted, "the engine does not know that nobody wants it"
            while self.engine.open:
                self.generate_all()
                await self.turns(1)
            await self.front.round_trip()
            await self.front.round_trip()

    def check(self) -> None:
        for index, heard in enumerate(self.heard):
            if not heard.cancelled:
                self.check_one(index, heard)
        assert self.engine.live == 0
        assert self.front.entries == 0

    def check_one(self, index: int, heard: Heard) -> None:
        expected = generated(heard.request(index).prompt)
        end = heard.end
        if isinstance(end, Draining):
            assert self.engine.draining and not heard.tokens
            return
        if index in self.engine.failed:
            assert isinstance(end, GenerationFailed) and str(end) == "shard 1 is gone"
            assert heard.tokens == expected[: min(self.engine.failed[index], heard.stop_at)]
            return
        last = min(heard.length, heard.eos_at, heard.stop_at)
        reason = FinishReason.LENGTH
        if last == heard.eos_at:
            reason = FinishReason.EOS
        elif last == heard.stop_at:
            reason = FinishReason.STOP
        assert isinstance(end, Finish), f"request {index} never ended"
        assert heard.tokens == expected[:last]
        assert (end.reason, end.generated_tokens) == (reason, last)


places = st.integers(0, 30)
near = st.integers(1, 6)
steps = st.one_of(
    st.tuples(
        st.just("submit"),
        st.one_of(near, st.just(NEVER)),
        st.one_of(near, st.just(NEVER)),
        st.one_of(near, st.just(NEVER)),
        st.booleans(),
    ),
    st.tuples(st.just("generate"), places, st.integers(1, 4)),
    st.just(("generate_all",)),
    st.just(("generate_all",)),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.just("cancel"), places),
    st.tuples(st.just("fail"), places),
    st.tuples(st.just("deaf"), st.booleans()),
    st.tuples(st.just("hear"), st.booleans()),
)
schedules = st.lists(steps, max_size=60)


async def play(schedule: list[tuple[Any, ...]], drain_at: int | None = None) -> World:
    engine = DrivenEngine()
    async with joined_front(engine, Metrics(64, 96)) as front:
        world = World(engine, front)
        for place, (name, *values) in enumerate(schedule):
            if place == drain_at:
                world.drain()
            with contextlib.suppress(RuntimeError):  # deaf already, or not deaf
                await world.do(name, *values)
        await world.settle()
        world.check()
    return world


@settings(max_examples=250, deadline=None)
@given(schedule=schedules, drain_at=st.one_of(st.none(), st.integers(0, 60)))
def test_any_schedule(schedule: list[tuple[Any, ...]], drain_at: int | None) -> None:
    """Every accepted request ends once, as it should, and nobody remembers it."""
    uvloop.run(play(schedule, drain_at))


@pytest.mark.parametrize("late", [0, 1, 5])
@pytest.mark.parametrize(
    ("length", "eos_at", "stop_at", "reason"),
    [
        (NEVER, NEVER, 3, FinishReason.STOP),
        (3, NEVER, 3, FinishReason.STOP),  # as where the API is beside the engine
        (4, NEVER, 3, FinishReason.STOP),
        (NEVER, 3, 3, FinishReason.EOS),
        (NEVER, 4, 3, FinishReason.STOP),
        (3, 3, NEVER, FinishReason.EOS),
    ],
)
async def test_a_stop_crosses_what_the_engine_goes_on_with(
    late: int, length: int, eos_at: int, stop_at: int, reason: FinishReason
) -> None:
    """The engine generates so many tokens more before it hears of the stop."""
    schedule = [
        ("submit", length, eos_at, stop_at, False),
        ("turns", 10),
        *[("generate_all",), ("turns", 4)] * 3,
        ("deaf", False),
        *[("generate_all",), ("turns", 4)] * late,
    ]
    world = await play(schedule)
    end = world.heard[0].end
    assert isinstance(end, Finish)
    assert (end.reason, end.generated_tokens, len(world.heard[0].tokens)) == (reason, 3, 3)


async def test_the_engine_is_told_of_a_stop_with_its_count() -> None:
    stops = []

    class Noting(DrivenEngine):
        def stop(self, request_id: int, generated: int) -> None:
            stops.append((request_id, generated, self.jobs[request_id - 1].sent))
            super().stop(request_id, generated)

    engine = Noting()
    async with joined_front(engine, Metrics(64, 96)) as front:
        world = World(engine, front)
        world.submit(NEVER, NEVER, 2, False)
        await world.turns(10)
        world.deaf(True)  # the front: the engine goes on meanwhile
        for _ in range(5):
            world.generate_all()
            await world.turns(3)
        assert not stops and not world.heard[0].tokens
        world.hear(True)
        await front.round_trip()
        assert stops == [(1, 2, 5)]
        assert not engine.open
        await world.settle()
        world.check()


async def test_what_a_token_carries_arrives() -> None:
    """Log-probabilities to float32's precision, and the most likely tokens of the right rows."""
    heard: list[tuple[int, int, float, TopTokens]] = []

    class Keeps(Heard):
        def token(self, token_id: int, logprob: float, top: TopTokens) -> bool:
            heard.append((self.number, token_id, logprob, [tuple(pair) for pair in top]))
            return super().token(token_id, logprob, top)

    engine = DrivenEngine()
    async with joined_front(engine, Metrics(64, 96)) as front:
        world = World(engine, front)
        for index, sampling in enumerate(
            [Sampling(), Sampling(logprobs=True, seed=1), Sampling(logprobs=True, top_n=3)]
        ):
            listener = Keeps(NEVER, NEVER, NEVER, False)
            request = GenerationRequest((index, 0, NEVER), NEVER, sampling=sampling)
            listener.number = front.engine.submit(request, listener)
            world.heard.append(listener)
        await front.round_trip()
        world.generate_all()
        await front.round_trip()
        plain, single, several = heard
        assert plain[2] != plain[2] and plain[3] == []
        assert single[2:] == (-0.75, [])
        assert several[2] == -0.25
        assert several[3] == [(several[1], -0.25), (11, -1.5), (12, float("-inf"))]


@pytest.mark.parametrize("error", [GenerationFailed("a"), Draining("b"), ShuttingDown("c")])
async def test_errors_keep_their_kind_and_words(error: EngineError) -> None:
    engine = DrivenEngine(refuse=error)
    async with joined_front(engine, Metrics(64, 96)) as front:
        world = World(engine, front)
        world.submit(5, 5, 5, False)
        await front.round_trip()
        refused = world.heard[0].end
        engine.refuse = None
        world.submit(5, 5, 5, False)
        await front.round_trip()
        engine.fail(engine.open[0], error)
        await front.round_trip()
        for end in (refused, world.heard[1].end):
            assert type(end) is type(error) and str(end) == str(error)
        assert front.entries == 0


async def test_a_front_that_is_gone_frees_what_it_had() -> None:
    engine = DrivenEngine()
    async with joined_front(engine, Metrics(64, 96)) as front:
        world = World(engine, front)
        for _ in range(5):
            world.submit(NEVER, NEVER, NEVER, False)
        await front.round_trip()
        world.generate_all()
        front.front_frames.close()
        async with asyncio.timeout(5):
            while engine.live:
                await asyncio.sleep(0.005)
        assert all(job.cancelled for job in engine.jobs) and not front.port._numbers


async def test_health_is_that_of_the_scheduling_process() -> None:
    async with joined_front(DrivenEngine(), Metrics(64, 96)) as front:
        assert front.engine.healthy and not front.engine.draining
        front.port_frames.send(ToFront(draining=True))
        await front.round_trip()
        assert front.engine.draining and front.engine.healthy
        with pytest.raises(Draining):
            front.engine.submit(GenerationRequest((1,), 1), Heard(1, 1, 1, False))
        front.port_frames.send(ToFront(leave=True))
        await asyncio.wait_for(front.engine.leave.wait(), 5)
        assert not front.engine.healthy


async def test_scrapes_that_cross() -> None:
    """Each gets an answer with everything in it that its front had counted; one may give up."""
    metrics = Metrics(64, 96)
    async with joined_front(DrivenEngine(), metrics) as front:
        front.metrics.on_request()
        first, gives_up, third = (asyncio.create_task(front.metrics.scrape()) for _ in range(3))
        await asyncio.sleep(0)
        gives_up.cancel()
        for name in ("overloaded", "dropped", "dropped"):
            front.metrics.on_failure(name)
        front.metrics.on_disconnect()
        front.metrics.on_slow_reader()
        front.metrics.on_success(2.0, 0.5, [0.25, 0.25])
        last = await asyncio.wait_for(front.metrics.scrape(), 5)
        for text in await asyncio.wait_for(asyncio.gather(first, third), 5):
            assert b"\ntgi_request_count 1\n" in text or b"\ntgi_request_count 1.0\n" in text
        rows = dict(
            line.rsplit(" ", 1) for line in last.decode().splitlines() if not line.startswith("#")
        )
        for name, value in {
            "tgi_request_count": 1,
            "tgi_request_success": 1,
            'tgi_request_failure{err="overloaded"}': 1,
            'tgi_request_failure{err="dropped"}': 2,
            "penstock_client_disconnects_total": 1,
            "penstock_slow_readers_total": 1,
            "tgi_request_duration_sum": 2.0,
            "tgi_request_validation_duration_sum": 0.5,
            "tgi_request_mean_time_per_token_duration_count": 2,
            "tgi_request_mean_time_per_token_duration_sum": 0.5,
        }.items():
            assert float(rows[name]) == value, name
        assert not front.metrics._scrapes
