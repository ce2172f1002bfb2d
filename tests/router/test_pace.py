"""What is expected of steps, from those that ran."""

from __future__ import annotations

import pytest

from penstock_router.pace import LEAD_SECONDS, Pace
from penstock_router.request import GenerationRequest
from penstock_router.scheduler import Sequence, StepPlan
from penstock_router.scheduler.block_manager import BlockManager


def seat_of_any():
    """Whose rows they are does not matter."""
    blocks = BlockManager(8, 4, True)
    sequence = Sequence(1, GenerationRequest((1, 2), 2), None, 0.0, 0.0)
    return blocks.admit(sequence, blocks.find_prefix(sequence), 0)


SEAT = seat_of_any()


def plan(decode: int, prompt: int = 0) -> StepPlan:
    """A step of so many decode rows and prompt tokens."""
    chunks = [(SEAT, prompt)] if prompt else []
    return StepPlan(1, decode=[SEAT] * decode, chunks=chunks)


def test_nothing_is_held_back_behind_a_step_whose_like_has_not_run():
    pace = Pace()
    pace.learn(plan(64), 0.1)
    pace.learn(plan(64, 512), 0.1)
    assert pace.slack(plan(0, 64)) == 0  # as many rows, but prompts
    assert pace.slack(plan(64, 2048)) == 0
    assert pace.slack(plan(64, 4096 - 64)) == 0  # a power of two apart
    assert pace.slack(plan(8)) == 0


def test_nothing_is_held_back_behind_a_short_step():
    pace = Pace()
    pace.learn(plan(64), LEAD_SECONDS)
    assert pace.slack(plan(64)) == 0


def test_the_lead_grows_with_the_step():
    pace = Pace()
    pace.learn(plan(64), 0.012)
    pace.learn(plan(64, 4000), 0.088)
    assert pace.slack(plan(64)) == pytest.approx(0.012 - LEAD_SECONDS)
    assert pace.slack(plan(64, 4000)) == pytest.approx(0.066)


def test_steps_of_about_as_many_rows_are_alike():
    pace = Pace()
    pace.learn(plan(128, 1024), 0.04)
    assert pace.slack(plan(126, 1020)) == pace.slack(plan(0, 1152)) == pytest.approx(0.03)


def test_a_shorter_step_is_believed_at_once_and_a_longer_one_slowly():
    pace = Pace()
    step = plan(64, 1000)
    pace.learn(step, 0.08)
    pace.learn(step, 0.04)
    assert pace.slack(step) == pytest.approx(0.03)
    pace.learn(step, 0.08)
    assert pace.slack(step) == pytest.approx(0.75 * 0.045)
    for _ in range(100):
        pace.learn(step, 0.08)
    assert pace.slack(step) == pytest.approx(0.06, rel=1e-3)
