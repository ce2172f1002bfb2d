"""Ends of sequences whose time is up."""

from __future__ import annotations

import asyncio

from penstock_router.deadlines import Deadlines
from penstock_router.request import GenerationRequest
from penstock_router.scheduler import Sequence
from penstock_router.scheduler.sequence import State


def hurried(number: int, state: State) -> Sequence:
    sequence = Sequence(number, GenerationRequest([1], 5, max_time=0.005), None, 0.0, 0.0)
    sequence.state = state
    return sequence


async def test_whoever_is_preempted_does_not_wait_to_run_again() -> None:
    """Its time was up while it ran, and its next token, which would have ended it, never came."""
    expired: list[Sequence] = []
    deadlines = Deadlines(expired.append)
    waiting, running, settling = sequences = [
        hurried(number, state)
        for number, state in enumerate((State.WAITING, State.RUNNING, State.SETTLING))
    ]
    for sequence in sequences:
        deadlines.start(sequence)
    async with asyncio.timeout(60):
        while len(deadlines.passed) < 2 or not expired:
            await asyncio.sleep(0.005)
    assert expired == [waiting]
    deadlines.expire_waiting()  # tokens of the others may come yet
    assert expired == [waiting]
    running.state = State.WAITING
    deadlines.expire_waiting()
    assert expired == [waiting, running]
    deadlines.forget(running)
    deadlines.forget(settling)
    assert not deadlines.passed
