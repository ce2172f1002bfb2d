"""Requests whose fates are known, an engine that generates when told, and both sides of a front."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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
    TopTokens,
)
from support.fake_engine import EOS, RANK, FakeEngine, Job, tell_prompt
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

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        self._check()
        assert not self.tokens and not self.prompts
        assert list(logprobs) == [None, -0.5, -0.5] and list(ranks) == [0, RANK, RANK]
        self.prompts += 1

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
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
        if job.sent == 0:
            tell_prompt(job.request, job.listener)
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
        self.front.link_frames.send(ToFront(draining=True))

    def deaf(self, front: bool) -> None:
        self._transport(front).pause_reading()

    def hear(self, front: bool) -> None:
        self._transport(front).resume_reading()

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    def _transport(self, front: bool) -> Any:
        frames = self.front.front_frames if front else self.front.link_frames
        return frames._transport

    async def settle(self) -> None:
        """Everything is heard, and what still runs is run to its end."""
        for side in (True, False):
            with contextlib.suppress(RuntimeError):
                self.hear(side)
        async with asyncio.timeout(60):
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
