"""Steps that do not fit in the shards' memory: what becomes of those that follow."""

from __future__ import annotations

import pytest

from penstock_router.scheduler import step_limits
from penstock_router.scheduler.plan import StepPlan
from penstock_router.scheduler.step_limits import LEAST_PROMPT_TOKENS, StepLimits
from support.scheduling import Loop


def test_sequences_of_a_step_without_memory_end_and_the_queue_goes_on() -> None:
    loop = Loop(memory_rows=100, num_blocks=400, max_batch_prefill_tokens=512)
    for first in range(80):
        loop.submit([first % 40 + 1, first // 40, *range(40), *range(20)], 12)
    loop.drain(ahead=2)
    lost = sum(generated.refused for generated in loop.ended)
    assert 0 < lost < 40 and len(loop.ended) == 80
    assert loop.scheduler.step_limits.prompt_tokens <= 100


def test_steps_that_only_decode_take_fewer_sequences() -> None:
    loop = Loop(memory_rows=3, max_batch_prefill_tokens=2, grant_seconds=0.004)
    for first in range(12):
        loop.submit([first + 1], 30)
    loop.drain(ahead=2)
    assert loop.scheduler.step_limits.sequences <= 3
    assert any(not generated.refused for generated in loop.ended)


def test_the_smallest_step_is_tried_again_and_again() -> None:
    """Nothing to take away any more, so each request ends with its error, and none waits."""
    loop = Loop(memory_rows=1)
    for _ in range(3):
        loop.submit([1, 2, 3], 4)
    loop.drain()
    assert all(generated.refused for generated in loop.ended)
    assert loop.scheduler.step_limits.sequences == 1


def test_sizes_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_limits, "STEPS_UNTIL_WHOLE", 10)
    steps = StepLimits(prompt_tokens=512, sequences=8)
    plan = StepPlan(1, runs=[(None, [1] * 100)])  # type: ignore[list-item]
    assert steps.shrink(plan) and steps.prompt_tokens == LEAST_PROMPT_TOKENS
    assert not steps.shrink(plan)
    steps.pass_steps(9)
    assert steps.prompt_tokens == LEAST_PROMPT_TOKENS
    steps.pass_steps(8)
    assert steps.prompt_tokens == 512
