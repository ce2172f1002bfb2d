"""Short prompts pass long ones in up to half of a step, and nothing of a step is given away."""

from __future__ import annotations

import random

import pytest

from penstock_router.scheduler import Sequence
from penstock_router.scheduler.sequence import State
from support.scheduling import Loop, running


def serving(**settings: object) -> Loop:
    """Steps of 64 prompt tokens."""
    sizes: dict[str, object] = {
        "num_blocks": 4000, "block_size": 16, "max_batch_size": 16, "cheap_rows": 0,
        "step_rows": (64,), "prefix_cache": False,
    }  # fmt: skip
    return Loop(**(sizes | settings))  # type: ignore[arg-type]


def prompt(length: int, number: int = 0) -> list[int]:
    return [(number * 7 + place) % 40 + 1 for place in range(length)]


def chunks(loop: Loop) -> dict[int, int]:
    """What the last step computed of whose prompt."""
    return {running.sequence.id: tokens for running, tokens in loop.plans[-1].chunks}


def test_a_short_one_does_not_wait_for_a_long_one() -> None:
    loop = serving()
    long = loop.submit(prompt(1000), 4)
    loop.step()
    short = loop.submit(prompt(20, 1), 4)
    loop.step()
    assert chunks(loop) == {short.id: 20, long.id: 44}
    loop.step()
    assert short.generated and not long.generated
    assert chunks(loop)[long.id] == 64  # and one row decodes
    loop.drain()


def test_the_long_one_has_half_of_a_step_whatever_comes() -> None:
    loop = serving()
    long = loop.submit(prompt(640), 4)
    loop.step()
    steps = 1
    while long.state is State.RUNNING and not long.generated:
        for number in range(3):
            loop.submit(prompt(30, steps * 3 + number), 1)
        loop.step()
        steps += 1
        left = 640 - sum(dict(plan_chunks(loop, place)).get(long.id, 0) for place in range(steps))
        assert chunks(loop).get(long.id, 0) >= 32 or left <= 0
    assert steps <= 2 + 640 // 32
    loop.drain()


def plan_chunks(loop: Loop, place: int) -> list[tuple[int, int]]:
    return [(running.sequence.id, tokens) for running, tokens in loop.plans[place].chunks]


def test_a_short_one_passes_long_ones_that_wait() -> None:
    loop = serving()
    longs = [loop.submit(prompt(500, number), 2) for number in range(4)]
    loop.step()
    short = loop.submit(prompt(10, 9), 2)
    loop.step()
    assert chunks(loop) == {short.id: 10, longs[0].id: 54}
    assert [one.state for one in longs[1:]] == [State.WAITING] * 3
    loop.drain()
    admitted = [one.admitted_at or 0.0 for one in longs]
    assert admitted == sorted(admitted)


@pytest.mark.parametrize(("priority", "passes"), [(-1, False), (0, True), (1, True)])
def test_only_of_no_lower_priority(priority: int, passes: bool) -> None:
    loop = serving()
    long = loop.submit(prompt(640), 2)
    loop.step()
    short = loop.submit(prompt(20, 1), 2, priority=priority)
    loop.step()
    assert (short.id in chunks(loop)) == passes and long.id in chunks(loop)
    loop.drain()


def test_nobody_passes_an_equal_one() -> None:
    loop = serving()
    equals = [loop.submit(prompt(150, number), 2) for number in range(5)]
    for _ in range(12):
        loop.step()
    order = [number for place in range(12) for number, _ in sorted(plan_chunks(loop, place))]
    assert sorted(order) == order
    first = {number: order.index(number) for number in {one.id for one in equals}}
    assert sorted(first, key=lambda number: first[number]) == [one.id for one in equals]
    loop.drain()


@pytest.mark.parametrize("ratio", [0.0, 100.0])
def test_it_needs_no_turn_where_the_step_is_as_long_in_any_case(ratio: float) -> None:
    loop = serving(waiting_served_ratio=ratio, max_waiting_tokens=1000)
    running(loop, 2)
    long = loop.submit(prompt(600), 4)
    while long.state is not State.RUNNING:
        loop.step()
    short = loop.submit(prompt(10, 3), 4)
    loop.step()
    assert short.state is State.RUNNING and loop.plans[-1].prefill_tokens == 64
    loop.drain()


@pytest.mark.parametrize("seed", range(20))
def test_no_step_is_shorter_than_it_could_be(seed: int) -> None:
    """Whatever is left of prompts that run is computed as far as the step allows."""
    draw, loop = random.Random(seed), serving(max_batch_size=6)
    live: list[Sequence] = []
    for step in range(120):
        if draw.random() < 0.4:
            length = draw.choice((3, 20, 100, 400))
            live.append(loop.submit(prompt(length, step), draw.randint(1, 5)))
        if loop.step() is None:
            continue
        left = sum(one.left for one in loop.scheduler._batch.prefilling())
        plan = loop.plans[-1]
        assert not left or plan.prefill_tokens + len(plan.decode) >= 64
        loop.check()
    loop.drain()
