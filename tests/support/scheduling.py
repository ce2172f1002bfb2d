"""A scheduler over a shard that checks every command: the engine's loop without the waiting."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from penstock_proto.shard_pb2 import Refusal, Sampling, StepResult
from penstock_router import wire
from penstock_router.request import FinishReason, GenerationRequest
from penstock_router.scheduler import Outcome, Scheduler, SchedulerConfig, Sequence, StepPlan
from penstock_router.scheduler.sequence import State
from support.fake_model import FakeModelConfig, FakeShardModel, expected_tokens

VOCABULARY = 50
EOS = 7


@dataclass
class Generated:
    """What a request has brought so far."""

    request: GenerationRequest
    expected: list[int]  # by the straight loop
    tokens: list[int] = field(default_factory=list)
    finish: FinishReason | None = None
    refused: bool = False


class Loop:
    """Plans, runs and commits by hand."""

    def __init__(
        self,
        eos_every: int = 0,
        nan_every: int = 0,
        forced_every: int = 0,
        memory_rows: int = 0,
        **settings: object,
    ) -> None:
        defaults: dict[str, object] = {
            "num_blocks": 64,
            "block_size": 4,
            "max_batch_size": 8,
            "max_batch_prefill_tokens": 64,
            "max_waiting_tokens": 20,
            "waiting_served_ratio": 0.0,
            "eos_token_ids": frozenset({EOS}),
            "grant_seconds": 0.0,
        }
        self.config = SchedulerConfig(**(defaults | settings))  # type: ignore[arg-type]
        self.model_config = FakeModelConfig(
            vocab_size=VOCABULARY,
            block_size=self.config.block_size,
            num_blocks=self.config.num_blocks,
            eos_token=EOS,
            eos_every=eos_every,
            nan_every=nan_every,
            forced_every=forced_every,
            memory_rows=memory_rows,
        )
        self.scheduler = Scheduler(self.config)
        self.sequences: dict[int, Sequence] = {}  # every one submitted
        self.shard = FakeShardModel(self.model_config)
        self.live: dict[int, Generated] = {}
        self.ended: list[Generated] = []
        self.results: deque[StepResult] = deque()
        self.plans: list[StepPlan] = []
        self.runs = 0  # planned
        self.now = 0.0

    @property
    def capacity(self) -> int:
        """Tokens that the blocks hold."""
        return (self.config.num_blocks - 1) * self.config.block_size

    def submit(
        self, prompt: list[int], max_new_tokens: int = 8, held: bool = False, **fields: object
    ) -> Sequence:
        """held: to a grammar, which forces the first of its tokens, and now and then some more."""
        request = GenerationRequest(tuple(prompt), max_new_tokens, **fields)  # type: ignore[arg-type]
        expected = self._expected(request, held)
        whole = len(expected) == max_new_tokens or expected[-1:] == [EOS]  # not refused
        forces = held and whole and self.model_config.forced_every
        opening = expected[: prompt[-1] % 4] if forces else []
        sequence = self.scheduler.submit(request, self.now, None, int(held), opening)
        self.live[sequence.id] = Generated(request, expected)
        self.sequences[sequence.id] = sequence
        return sequence

    def cancel(self, number: int) -> None:
        self.scheduler.cancel(number)
        self.live.pop(number, None)

    def plan(self) -> StepPlan | None:
        """Plan a command and let the shard run it; its results wait to be committed."""
        plan = self.scheduler.plan(self.now)
        if plan is None:
            # Nobody would ask again: what asks for plans are arrivals and results.
            assert self.results or self.scheduler.idle, "nothing is planned, nothing is under way"
            return None
        config = self.config
        assert plan.prefill_tokens <= config.max_batch_prefill_tokens
        assert plan.prefill_tokens + plan.run_tokens <= config.max_batch_prefill_tokens
        assert len(plan.decode) + plan.chunked <= config.max_batch_size
        assert plan.repeat == 1 or not (self.scheduler.waiting or plan.chunked)
        self.runs += len(plan.runs)
        results = self.shard.run(wire.command(plan))
        assert not results[-1].HasField("error"), results[-1].error.message
        assert len(results) == plan.repeat
        self.results.extend(results)
        self.plans.append(plan)
        return plan

    def commit(self) -> list[Outcome]:
        """Take in the oldest result."""
        result = self.results.popleft()
        for refusal in result.refused:
            self._refuse(result.step, refusal)
        if any(refusal.kind == Refusal.OUT_OF_MEMORY for refusal in result.refused):
            [plan] = [p for p in self.plans if p.step <= result.step <= p.last_step]
            self.scheduler.step_limits.shrink(plan)
        forced = {one.row: one.token for one in result.forced}
        outcomes = self.scheduler.commit(result.step, result.token, 0.001, forced)
        for outcome in outcomes:
            generated = self.live[outcome.sequence.id]
            assert (not outcome.tokens) == (generated.request.max_new_tokens == 0)
            generated.tokens += outcome.tokens
            if outcome.finish is not None:
                self._end(outcome.sequence.id, outcome.finish)
        return outcomes

    def stop(self, sequence: Sequence) -> None:
        """What the engine does when the text of a sequence has reached a stop string."""
        self.scheduler.finish(sequence)
        self._end(sequence.id, FinishReason.STOP)

    def end_all(self) -> None:
        """What the engine does when the grace period is over; results on their way are lost."""
        assert {sequence.id for sequence in self.scheduler.end_all()} == self.live.keys()
        self.live.clear()
        self.results.clear()

    def turn(self, ahead: int) -> None:
        """What the engine does at a result: plans up to so many steps ahead, takes one result."""
        self.now += 0.01
        while len(self.results) < ahead and self.plan():
            pass
        if self.results:
            self.commit()

    def step(self) -> StepPlan | None:
        """One plan and everything that is due."""
        self.now += 0.01
        plan = self.plan()
        while self.results:
            self.commit()
        return plan

    def drain(self, steps: int = 5000, ahead: int = 1) -> None:
        """Run until nothing is left; it must come to an end."""
        for _ in range(steps):
            if self.scheduler.idle and not self.results:
                break
            self.turn(ahead)
        assert self.scheduler.idle, "requests starve"
        assert not self.live
        assert self.scheduler.blocks.used == 0
        self.check()

    def check(self) -> None:
        """Those that have ended were compared when they did."""
        self.scheduler.check_integrity()
        for generated in self.live.values():
            assert generated.tokens == generated.expected[: len(generated.tokens)]

    def _refuse(self, step: int, refusal: Refusal) -> None:
        """What the engine does with it; the cache has nothing more of it, and above all no NaN."""
        broken = refusal.kind == Refusal.NOT_A_NUMBER
        sequence = self.scheduler.refuse(step, refusal.slot, broken)
        if sequence is None:
            return
        generated = self.live.pop(sequence.id)
        generated.refused = True
        self.ended.append(generated)
        if refusal.kind == Refusal.OUT_OF_MEMORY:
            generated.expected = generated.expected[: len(generated.tokens)]
        assert generated.tokens == generated.expected, "refused too late, or too early"
        # Of a request for no token the prompt is computed all the same.
        assert len(generated.tokens) < max(1, generated.request.max_new_tokens)
        if broken:
            blocks, size = self.scheduler.blocks, self.config.block_size
            limit = sequence.length // size
            node = blocks.cache.match(sequence.request.cache_salt, sequence.tokens, limit)
            assert node.depth <= sequence.cached_tokens // size, "what it computed is in the tree"
            assert not any(self.shard.holds_nan(block) for block in node.path_blocks())

    def _expected(self, request: GenerationRequest, held: bool) -> list[int]:
        config = self.model_config
        sampling = Sampling(temperature=request.sampling.temperature, seed=request.sampling.seed)
        if request.ignore_eos and config.eos_every and not held:
            return _past_eos(request, config, sampling)
        return expected_tokens(request.prompt, request.max_new_tokens, config, sampling)

    def _end(self, number: int, finish: FinishReason) -> None:
        generated = self.live.pop(number)
        generated.finish = finish
        expected = generated.expected
        if finish is FinishReason.STOP:
            expected = expected[: len(generated.tokens)]
        assert generated.tokens == expected, f"ended by {finish}"
        self.ended.append(generated)


def _past_eos(request: GenerationRequest, config: FakeModelConfig, sampling: Sampling) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < request.max_new_tokens:
        left = request.max_new_tokens - len(tokens)
        more = expected_tokens([*request.prompt, *tokens], left, config, sampling)
        if not more:
            break  # it is refused
        tokens += more
    return tokens


def running(loop: Loop, count: int, tokens: int = 60) -> list[Sequence]:
    """So many sequences that decode."""
    sequences = [loop.submit([index % 40 + 1], tokens) for index in range(count)]
    while any(sequence.state is not State.RUNNING for sequence in sequences):
        loop.step()
    loop.step()
    return sequences
