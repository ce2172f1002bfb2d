"""What crosses the wire between a front and the engine: ends, errors, values, counts."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from penstock_proto.front_pb2 import ToFront
from penstock_router.metrics import Metrics
from penstock_router.request import (
    Draining,
    EngineError,
    Finish,
    FinishReason,
    GenerationFailed,
    GenerationRequest,
    Sampling,
    ShuttingDown,
    TopTokens,
)
from support.fake_engine import RANK
from support.front_world import NEVER, DrivenEngine, Heard, World, play
from support.joined_front import joined_front


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
    heard: list[tuple[int, int, float, TopTokens, int]] = []

    class Keeps(Heard):
        def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
            heard.append((self.number, token_id, logprob, [tuple(pair) for pair in top], rank))
            return super().token(token_id, logprob, top, rank)

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
        assert plain[4] == 0 and single[2:] == (-0.75, [], RANK)
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
        async with asyncio.timeout(60):
            while engine.live:
                await asyncio.sleep(0.005)
        assert all(job.cancelled for job in engine.jobs) and not front.link._numbers


async def test_health_is_that_of_the_scheduling_process() -> None:
    async with joined_front(DrivenEngine(), Metrics(64, 96)) as front:
        assert not front.engine.trouble and not front.engine.withdrawn
        front.link.withdraw()
        await front.round_trip()
        assert front.engine.withdrawn and not front.engine.draining
        front.link_frames.send(ToFront(draining=True))
        await front.round_trip()
        assert front.engine.draining and not front.engine.trouble
        with pytest.raises(Draining):
            front.engine.submit(GenerationRequest((1,), 1), Heard(1, 1, 1, False))
        front.link_frames.send(ToFront(leave=True))
        await asyncio.wait_for(front.engine.leave.wait(), 60)
        assert front.engine.trouble == "the server ends"


async def test_trouble_is_that_of_the_scheduling_process() -> None:
    async with joined_front(DrivenEngine(), Metrics(64, 96)) as front:
        front.link.trouble("no answer from shard 1")
        await front.round_trip()
        assert front.engine.trouble == "no answer from shard 1"
        front.link.drain()
        await front.round_trip()
        assert front.engine.trouble == "no answer from shard 1" and front.engine.draining
        front.link.trouble("")
        await front.round_trip()
        assert front.engine.trouble == ""


async def test_looks_are_those_of_all_fronts() -> None:
    metrics = Metrics(64, 96)
    async with joined_front(DrivenEngine(), metrics) as front:
        front.metrics.on_request()
        await front.round_trip()
        assert metrics.looked_at == -math.inf
        before = time.monotonic()
        front.metrics.on_look()
        await front.round_trip()
        assert before <= metrics.looked_at <= time.monotonic()


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
        last = await asyncio.wait_for(front.metrics.scrape(), 60)
        for text in await asyncio.wait_for(asyncio.gather(first, third), 60):
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
