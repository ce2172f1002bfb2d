"""Random schedules: whatever is submitted, cancelled and stopped when, every invariant holds."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock_router.request import Sampling
from penstock_router.scheduler import Sequence
from penstock_router.scheduler.sequence import State
from support.scheduling import VOCABULARY, Loop

SIZES = {
    "num_blocks": st.one_of(st.integers(3, 24), st.integers(3, 9)),
    "block_size": st.sampled_from([1, 2, 3, 4, 8, 16]),
    "max_batch_size": st.integers(1, 8),
    "max_batch_prefill_tokens": st.sampled_from([1, 3, 8, 64]),
    "max_waiting_tokens": st.integers(0, 6),
    "cheap_rows": st.sampled_from([0, 5, 384]),
    "waiting_served_ratio": st.sampled_from([0.0, 0.3, 1.5]),
    "grant_seconds": st.sampled_from([0.0, 0.004]),
    "prefix_cache": st.booleans(),
    "shared_reads": st.sampled_from([None, 1, 20]),
    "eos_every": st.sampled_from([0, 5, 30]),
    "forced_every": st.sampled_from([0, 2, 6]),
    "nan_every": st.sampled_from([0, 0, 30, 300]),
}
# Fields of a request that schedules treat differently.
KINDS = st.fixed_dictionaries(
    {
        "priority": st.integers(-5, 5),
        "cache_salt": st.sampled_from([b"", b"a"]),
        "prompt_logprobs": st.booleans(),
        "prompt_logprobs_start": st.sampled_from([0, 0, 5, 20, 1000]),
        "ignore_eos": st.booleans(),
        "held": st.booleans(),
        "sampling": st.sampled_from([Sampling(), Sampling(temperature=1.0, seed=3)]),
    }
)
PLANS_AHEAD = 3
LONGEST_PROMPT = 60  # or what the pool holds, if that is less


def is_planned_out(sequence: Sequence) -> bool:
    """Whether its last step is planned and its last result not in."""
    return sequence.state is State.RUNNING and sequence.unplanned <= 0


def is_prefilling(sequence: Sequence) -> bool:
    return sequence.state is State.RUNNING and not sequence.generated and not sequence.in_flight


# Moments of a sequence's life that random choice alone would seldom meet.
MOMENTS = {
    "any": lambda sequence: True,
    "waiting": lambda sequence: sequence.state is State.WAITING,
    "prefilling": is_prefilling,
    "decoding": lambda sequence: sequence.state is State.RUNNING and sequence.generated,
    "planned out": is_planned_out,
    "settling": lambda sequence: sequence.state is State.SETTLING,
    "resuming": lambda sequence: sequence.state is State.WAITING and sequence.generated,
}


class Schedules(RuleBasedStateMachine):
    """Each rule is something that can happen to a scheduler between two others."""

    @initialize(sizes=st.fixed_dictionaries(SIZES), ahead=st.integers(1, PLANS_AHEAD))
    def start(self, sizes: dict[str, object], ahead: int) -> None:
        self.ahead = ahead  # in the end
        self.loop = Loop(**sizes)  # type: ignore[arg-type]
        self.submitted = 0

    def at_moment(self, moment: str) -> list[Sequence]:
        live = [self.loop.sequences[number] for number in sorted(self.loop.live)]
        return [sequence for sequence in live if MOMENTS[moment](sequence)]

    @rule(data=st.data(), stem=st.integers(0, 2), burst=st.integers(1, 4), kind=KINDS)
    def submit(self, data: st.DataObject, stem: int, burst: int, kind: dict[str, object]) -> None:
        """Prompts of one stem share their beginning, so that the tree is really shared."""
        length = data.draw(st.integers(1, min(self.loop.capacity - 1, LONGEST_PROMPT)))
        own = data.draw(st.integers(0, 3))
        prompt = [(stem * 7 + i) % 40 for i in range(length)][: max(1, length - own)]
        prompt += [41 + i for i in range(length - len(prompt))]
        most = data.draw(st.integers(0, min(20, self.loop.capacity - length)))
        for _ in range(burst):
            self.loop.submit(prompt, most, **kind)
            self.submitted += 1

    @rule(stem=st.integers(0, 2), length=st.integers(1, 30), at=st.integers(0, 29))
    def submit_what_is_refused(self, stem: int, length: int, at: int) -> None:
        """A prompt with a token beyond the vocabulary, which shares its beginning with others."""
        length = min(length, self.loop.capacity - 1)
        prompt = [(stem * 7 + i) % 40 for i in range(length)]
        prompt[at % length] = VOCABULARY
        self.loop.submit(prompt, 1)
        self.submitted += 1

    @precondition(lambda self: self.loop.ended)
    @rule(data=st.data())
    def follow_up(self, data: st.DataObject) -> None:
        """A conversation goes on: its prompt is what an earlier request asked and was told."""
        before = data.draw(st.sampled_from(self.loop.ended))
        prompt = [*before.request.prompt, *before.tokens, 5]
        if len(prompt) < self.loop.capacity:
            self.loop.submit(prompt, 1)
            self.submitted += 1

    @precondition(lambda self: len(self.loop.results) < PLANS_AHEAD)
    @rule(wait=st.floats(0, 3))
    def plan(self, wait: float) -> None:
        self.loop.now += wait
        self.loop.plan()

    @precondition(lambda self: self.loop.live)
    @rule(turns=st.integers(2, 20), ahead=st.integers(1, PLANS_AHEAD))
    def go_on(self, turns: int, ahead: int) -> None:
        """Far enough for some to be in the middle of something."""
        for _ in range(turns):
            self.loop.turn(ahead)

    @precondition(lambda self: self.loop.results)
    @rule(stop=st.booleans(), plan_first=st.booleans())
    def commit(self, stop: bool, plan_first: bool) -> None:
        """The engine plans between a result and its delivery, where a stop string shows itself."""
        going_on = [outcome for outcome in self.loop.commit() if outcome.finish is None]
        if plan_first:
            self.loop.plan()
        if stop and going_on:
            self.loop.stop(going_on[-1].sequence)

    @precondition(lambda self: self.loop.live)
    @rule(
        data=st.data(),
        moment=st.sampled_from(sorted(MOMENTS)),
        stop=st.booleans(),
        ahead=st.integers(1, PLANS_AHEAD),
    )
    def end(self, data: st.DataObject, moment: str, stop: bool, ahead: int) -> None:
        """Goes on until some sequence is at that moment of its life, and ends it there."""
        for _ in range(100):
            if candidates := self.at_moment(moment):
                sequence = data.draw(st.sampled_from(candidates))
                if stop and sequence.generated:
                    return self.loop.stop(sequence)
                self.submitted -= 1
                return self.loop.cancel(sequence.id)
            if len(self.loop.results) >= ahead or not self.loop.plan():
                if not self.loop.results:
                    return
                self.loop.commit()

    @rule(number=st.integers(0, 200))
    def cancel_what_is_not_there(self, number: int) -> None:
        if number not in self.loop.live:
            assert self.loop.scheduler.cancel(number) is None

    @precondition(lambda self: len(self.loop.live) > 4)
    @rule()
    def end_all(self) -> None:
        self.submitted -= len(self.loop.live)
        self.loop.end_all()
        assert self.loop.scheduler.idle and self.loop.scheduler.blocks.used == 0

    @invariant()
    def all_adds_up(self) -> None:
        if hasattr(self, "loop"):
            self.loop.check()
            assert self.submitted == len(self.loop.live) + len(self.loop.ended)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.drain(ahead=self.ahead)
            assert self.submitted == len(self.loop.ended)


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
