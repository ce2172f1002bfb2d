"""Runs of forced tokens: computed as chunks, and nothing else changes."""

from __future__ import annotations

import pytest

from penstock_router.request import FinishReason, Sampling
from penstock_router.scheduler import Sequence
from penstock_router.scheduler.sequence import State
from penstock_router.token_rules import TokenRules
from support.scheduling import EOS, Loop


def steps(loop: Loop) -> int:
    """How many were planned."""
    return sum(plan.repeat for plan in loop.plans)


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_a_run_saves_all_of_its_steps_but_one(ahead: int) -> None:
    with_runs, without = Loop(forced_every=3), Loop()
    for loop in (with_runs, without):
        loop.submit([1, 2, 3], 60, held=True)
        loop.drain(ahead=ahead)
    assert with_runs.ended[0].tokens == without.ended[0].tokens
    saved = sum(plan.run_tokens - 1 for plan in with_runs.plans if plan.runs)
    opening = 3  # 3 % 4
    # What is in flight when the last token comes is for nobody.
    assert steps(without) - ahead <= steps(with_runs) + saved + opening <= steps(without) + ahead
    assert saved > 20


def test_a_run_is_in_the_step_behind_the_one_in_flight() -> None:
    """Token n begins it; n + 1 is in flight and brings its first; n + 2 brings the others."""
    loop = Loop(forced_every=3)
    sequence = loop.submit([1, 2, 3], 60, held=True)
    while not loop.plans or not loop.plans[-1].runs:
        loop.turn(2)
    [(running, tokens)] = loop.plans[-1].runs
    assert running.sequence is sequence
    assert not loop.plans[-1].decode and loop.plans[-1].decode_changed
    before = list(loop.live[sequence.id].tokens)
    assert tokens[0] == before[-1], "the step that was in flight when it was planned"
    [outcome] = loop.commit()
    assert outcome.tokens[:-1] == tokens[1:]
    assert loop.live[sequence.id].tokens == before + outcome.tokens
    loop.drain(ahead=2)


def test_without_a_step_in_flight_the_token_that_begins_it_is_in_the_chunk() -> None:
    loop = Loop(forced_every=3)
    loop.submit([1, 2, 3], 60, held=True)
    while loop.live:
        before = {number: list(one.tokens) for number, one in loop.live.items()}
        plan = loop.step()
        for running, tokens in plan.runs if plan else ():
            assert tokens[0] == before[running.sequence.id][-1]
    assert loop.runs


@pytest.mark.parametrize(
    "tight",
    [
        {"max_batch_prefill_tokens": 1},
        {"most_runs": 0},
        {"longest_run_context": 0},
        {"forced_runs": False},
    ],
)
def test_without_room_it_decodes_on(tight: dict[str, int]) -> None:
    loop = Loop(forced_every=2, **tight)
    for _ in range(3):
        loop.submit([1, 2, 3], 30, held=True)
    loop.drain(ahead=2)
    assert not loop.runs and len(loop.ended) == 3


def test_a_run_takes_nobodys_blocks() -> None:
    loop = Loop(forced_every=2, num_blocks=9, block_size=2)
    loop.submit([1], 12, held=True)
    loop.submit([5], 12, held=True)
    loop.drain(ahead=2)
    assert loop.runs


@pytest.mark.parametrize("most", range(1, 14))
def test_it_ends_at_its_length(most: int) -> None:
    loop = Loop(forced_every=1)
    loop.submit([1, 2, 3], most, held=True)
    loop.drain(ahead=2)
    assert loop.ended[0].finish is FinishReason.LENGTH
    assert len(loop.ended[0].tokens) == most


def test_it_ends_at_a_forced_end() -> None:
    ended = 0
    for first in range(20):
        loop = Loop(forced_every=1, eos_every=6)
        loop.submit([first], 30, held=True, ignore_eos=True)
        loop.drain(ahead=2)
        ended += loop.ended[0].tokens[-1] == EOS
    assert ended > 10


def opened(loop: Loop, **fields: object) -> Sequence:
    return loop.submit([1, 2, 3], 8, held=True, **fields)


def test_what_is_forced_at_the_start_is_computed_with_the_prompt() -> None:
    loop = Loop(forced_every=1000)
    sequence = opened(loop)
    assert sequence.generated == 3 and sequence.delivered == 0
    plan = loop.plan()
    assert plan is not None and plan.prefill_tokens == 6
    [outcome] = loop.commit()
    assert len(outcome.tokens) == 4 and sequence.delivered == 4
    loop.drain()


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": Sampling(logprobs=True)},
        {"sampling": Sampling(top_n=1)},
        {"sampling": Sampling(given=(1,))},
        {"sampling": Sampling(rules=TokenRules(allowed=(1,)))},
        {"prompt_logprobs": True},
    ],
)
def test_what_is_asked_about_is_chosen_one_by_one(fields: dict[str, object]) -> None:
    loop = Loop(forced_every=1000)
    assert opened(loop, **fields).generated == 0


def test_a_run_that_contradicts_what_was_generated_is_an_error() -> None:
    loop = Loop(forced_every=0)
    loop.submit([1, 2], 20, held=True)
    loop.plan(), loop.plan()
    first, second = loop.results
    loop.scheduler.commit(1, list(first.token), 0.0, {0: [second.token[0] + 1, 9, 9]})
    plan = loop.scheduler.plan(0.0)
    assert plan is not None and plan.runs
    loop.scheduler.commit(2, list(second.token), 0.0)
    with pytest.raises(ValueError, match="was forced, but"):
        loop.scheduler.commit(3, [1], 0.0)


def test_what_is_forced_behind_a_row_that_is_not_there_is_an_error() -> None:
    loop = Loop()
    loop.submit([1, 2], 20, held=True)
    loop.plan()
    with pytest.raises(ValueError, match="behind row 1"):
        loop.scheduler.commit(1, list(loop.results[0].token), 0.0, {1: [1, 2]})


def test_preempted_in_a_run_it_resumes_behind_it() -> None:
    """The youngest is preempted while its run is in flight: more tokens than results."""
    preempted = 0
    for size in range(10, 60):
        loop = Loop(forced_every=2, num_blocks=size, block_size=1, prefix_cache=False)
        for first in range(4):
            loop.submit([first], min(24, loop.capacity - 1), held=True)
        while loop.live:
            while len(loop.results) < 3 and loop.plan():
                pass
            for sequence in loop.sequences.values():
                settling = sequence.state is State.SETTLING
                preempted += settling and sequence.in_flight > len(loop.results)
            loop.commit()
    assert preempted, "none was in flight"
