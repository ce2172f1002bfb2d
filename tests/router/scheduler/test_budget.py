"""How many prompt tokens steps take, and what of those that wait counts."""

from __future__ import annotations

import pytest

from penstock_router.scheduler import Sequence
from penstock_router.scheduler.budget import prompt_budget
from penstock_router.scheduler.sequence import State
from support.scheduling import Loop, running


@pytest.mark.parametrize(
    ("decoding", "waiting", "expected"),
    [
        (0, 10_000, 4096),  # nobody waits for the step: as much as it may take
        (1, 500, 383),  # up to 384 rows
        (40, 5_000, 384 - 40),  # eight for each that decodes are no more than that
        (60, 5_000, 1152 - 60),
        (40, 16_000, 1152 - 40),  # a queue is computed within 32 steps, in turns of the whole card
        (60, 50_000, 2048 - 60),
        (2, 400_000, 4096),
    ],
)
def test_prompts_share_steps_with_the_batch(decoding: int, waiting: int, expected: int) -> None:
    loop = Loop(num_blocks=60_000, block_size=16, max_batch_size=81, max_batch_prefill_tokens=4096)
    if decoding:
        running(loop, decoding)
    loop.submit([5] * waiting, 1)
    loop.step()
    assert loop.plans[-1].prefill_tokens == min(expected, waiting)
    loop.drain()


def test_a_long_prompt_is_computed_within_a_few_steps() -> None:
    loop = Loop(num_blocks=60_000, block_size=16, max_batch_size=9, max_batch_prefill_tokens=4096)
    running(loop, 8)
    loop.submit([5] * 7000, 1)
    loop.step()  # as much as beside any prompt: it has only just been admitted
    first = loop.plans[-1].prefill_tokens
    steps = 1
    while (left := 7000 - sum(plan.prefill_tokens for plan in loop.plans[-steps:])) > 0:
        loop.step()
        steps += 1
        assert loop.plans[-1].prefill_tokens == min(left, 2048 - 8)
    assert first == 384 - 8
    loop.drain()


@pytest.mark.parametrize(
    ("decoding", "unplanned", "longest", "expected"),
    [
        (227, 10_000, 0, 2048 - 227),
        (228, 10_000, 0, 2304 - 228),  # not all 16,384 because nine rows each are beyond 2,048
        (16, 16_384, 16_384, 3328 - 16),  # five steps, not one
        (16, 32_000, 32_000, 6656 - 16),
        (2, 400_000, 0, 12_544 - 2),  # within 32 steps
        (2, 900_000, 0, 16_384),
    ],
)
def test_a_large_budget_is_not_spent_at_once(
    decoding: int, unplanned: int, longest: int, expected: int
) -> None:
    config = Loop(max_batch_prefill_tokens=16_384).config
    assert prompt_budget(config, decoding, unplanned, longest) == expected


def serving(**settings: object) -> Loop:
    """Prompts of thousands of tokens, in steps of up to 4,096 of them."""
    sizes: dict[str, object] = {
        "num_blocks": 4000,
        "block_size": 16,
        "max_batch_size": 64,
        "max_batch_prefill_tokens": 4096,
    }
    return Loop(**(sizes | settings))  # type: ignore[arg-type]


def alike(shared: int, own: int, number: int) -> list[int]:
    """Prompt `number` of those whose first `shared` tokens are the same ones."""
    first = [index % 37 for index in range(shared)]
    return [*first, number % 49, number // 49, *[39] * (own - 2)]


def rows_of_steps(loop: Loop, burst: list[Sequence]) -> list[int]:
    """Rows of the steps from now on, until no prompt of the burst is left to compute."""
    before = len(loop.plans)
    while not all(sequence.generated for sequence in burst):
        loop.step()
    return [plan.prefill_tokens + len(plan.decode) for plan in loop.plans[before:]]


def test_a_burst_behind_a_cached_prefix_takes_small_steps() -> None:
    """31 prompts of 2,048 tokens, of which 2,000 are cached, are 1,488 to compute."""
    loop = serving()
    loop.submit(alike(2000, 48, 0), 2)
    loop.drain()
    running(loop, 4)
    burst = [loop.submit(alike(2000, 48, number), 20) for number in range(1, 32)]
    rows = rows_of_steps(loop, burst)
    assert len(rows) > 3 and max(rows) == loop.config.cheap_rows
    assert all(sequence.cached_tokens == 2000 for sequence in burst)
    loop.drain()


def test_a_burst_behind_a_prefix_that_is_being_computed_takes_small_steps() -> None:
    """Who waits for whom is known from the first step on; then only what is their own counts."""
    loop = serving()
    running(loop, 4)
    burst = [loop.submit(alike(5000, 48, number), 20) for number in range(31)]
    rows = rows_of_steps(loop, burst)
    assert rows[0] == 4096 + 4  # all were counted as if they had to be computed
    assert rows[1] == 5048 - 4096 + 4  # the rest of the first one, for which the others wait
    assert len(rows) > 5 and max(rows[2:]) == loop.config.cheap_rows
    assert all(sequence.cached_tokens >= 5000 for sequence in burst[1:])
    loop.drain()


def test_those_that_wait_are_counted_again_when_their_prefix_is_there() -> None:
    """64 of 200 are passed over while the first one is computed, and the others wait behind."""
    loop = serving()
    running(loop, 4)
    burst = [loop.submit(alike(5000, 48, number), 20) for number in range(200)]
    rows = rows_of_steps(loop, burst[:60])
    assert rows[0] == 4096 + 4 and rows[1] == 5048 - 4096 + 4
    assert rows[2:7] == [loop.config.cheap_rows] * 5  # until more than 42 decode
    loop.drain()


def test_those_that_wait_for_a_prefix_count_with_what_is_their_own() -> None:
    loop = serving()
    running(loop, 4)
    burst = [loop.submit(alike(3200, 800, number), 4) for number in range(34)]
    rows = rows_of_steps(loop, burst)
    assert rows[0] == 4000 + 4  # the first one
    assert rows[1:5] == [1152] * 4  # 33 times 800 tokens within 32 steps
    loop.drain()


def test_a_burst_of_which_nothing_is_cached_is_drained() -> None:
    loop = serving()
    running(loop, 4)
    burst = [loop.submit([number] * 2048, 4) for number in range(24)]
    rows = rows_of_steps(loop, burst)
    assert rows[:9] == [*[2048] * 7, 1152, 1152]  # always what is left within 32 steps
    loop.drain()


@pytest.mark.parametrize("ahead", [1, 3])  # the second: preempted before its results are in
def test_what_the_cache_holds_of_a_preempted_sequence_does_not_count(ahead: int) -> None:
    loop = serving(num_blocks=1 + 942)
    running(loop, 1, tokens=200)
    victim = loop.submit([5] * 15_000, 60)
    while not loop.scheduler.preemptions:
        loop.turn(ahead)
    assert victim.state is (State.WAITING if ahead == 1 else State.SETTLING)
    while loop.results:
        loop.commit()
    urgent = loop.submit([6] * 1000, 4, priority=1)
    rows = rows_of_steps(loop, [urgent])
    assert len(rows) == 3 and max(rows) == loop.config.cheap_rows
    assert victim.state is State.WAITING
    loop.drain()
