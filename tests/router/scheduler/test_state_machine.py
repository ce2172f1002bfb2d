"""Random schedules: whatever is submitted, cancelled and stopped when, every invariant holds."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.scheduling import Loop

SIZES = {
    "num_blocks": st.integers(3, 24),
    "block_size": st.sampled_from([1, 2, 3, 4, 8, 16]),
    "max_batch_size": st.integers(1, 8),
    "max_batch_prefill_tokens": st.sampled_from([1, 3, 8, 64]),
    "max_waiting_tokens": st.integers(0, 6),
    "waiting_served_ratio": st.sampled_from([0.0, 0.3, 1.5]),
    "grant_seconds": st.sampled_from([0.0, 0.004]),
    "prefix_cache": st.booleans(),
    "eos_every": st.sampled_from([0, 5, 30]),
}
PLANS_AHEAD = 3


class Schedules(RuleBasedStateMachine):
    """Each rule is something that can happen to a scheduler between two others."""

    @initialize(sizes=st.fixed_dictionaries(SIZES))
    def start(self, sizes: dict[str, object]) -> None:
        self.loop = Loop(**sizes)  # type: ignore[arg-type]
        self.submitted = 0

    @rule(
        data=st.data(),
        stem=st.integers(0, 2),
        burst=st.integers(1, 4),
        priority=st.integers(-5, 5),
        tenant=st.sampled_from([b"", b"a"]),
        prompt_logprobs=st.booleans(),
        ignore_eos=st.booleans(),
    )
    def submit(
        self,
        data: st.DataObject,
        stem: int,
        burst: int,
        priority: int,
        tenant: bytes,
        prompt_logprobs: bool,
        ignore_eos: bool,
    ) -> None:
        """Prompts of one stem share their beginning, so that the tree is really shared."""
        longest = min(self.loop.capacity - 1, 60)
        length = data.draw(st.integers(1, longest))
        own = data.draw(st.integers(0, 3))
        prompt = [(stem * 7 + i) % 40 for i in range(length)][: max(1, length - own)]
        prompt += [41 + i for i in range(length - len(prompt))]
        most = data.draw(st.integers(1, min(20, self.loop.capacity - length)))
        for _ in range(burst):
            self.loop.submit(
                prompt,
                most,
                priority=priority,
                tenant=tenant,
                prompt_logprobs=prompt_logprobs,
                ignore_eos=ignore_eos,
            )
            self.submitted += 1

    @precondition(lambda self: len(self.loop.results) < PLANS_AHEAD)
    @rule(wait=st.floats(0, 3))
    def plan(self, wait: float) -> None:
        self.loop.now += wait
        self.loop.plan()

    @precondition(lambda self: self.loop.results)
    @rule(stop=st.booleans())
    def commit(self, stop: bool) -> None:
        outcomes = self.loop.commit()
        going_on = [outcome for outcome in outcomes if outcome.finish is None]
        if stop and going_on:
            self.loop.stop(going_on[-1].sequence)

    @precondition(lambda self: self.loop.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.submitted -= 1
        self.loop.cancel(data.draw(st.sampled_from(sorted(self.loop.live))))

    @rule(number=st.integers(0, 200))
    def cancel_what_is_not_there(self, number: int) -> None:
        if number not in self.loop.live:
            assert self.loop.scheduler.cancel(number) is None

    @invariant()
    def all_adds_up(self) -> None:
        if hasattr(self, "loop"):
            self.loop.check()
            assert self.submitted == len(self.loop.live) + len(self.loop.ended)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.drain()
            assert self.submitted == len(self.loop.ended)


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
