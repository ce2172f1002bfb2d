"""What the scheduler decides, one decision a test."""

from __future__ import annotations

import pytest

from penstock_router.request import FinishReason
from penstock_router.scheduler import Sequence
from penstock_router.scheduler.scheduler import SECONDS_PER_PRIORITY
from penstock_router.scheduler.sequence import State
from support.scheduling import Loop, running


def steps_until_served(loop: Loop, sequence: Sequence) -> int:
    for steps in range(200):
        if sequence.state is State.RUNNING:
            return steps
        loop.step()
    raise AssertionError("never served")


@pytest.mark.parametrize("steps", [3, 10])
def test_the_queue_is_served_after_max_waiting_tokens(steps: int) -> None:
    loop = Loop(waiting_served_ratio=1.0, max_waiting_tokens=steps, cheap_rows=0)
    running(loop, 4)
    waited = steps_until_served(loop, loop.submit([40], 4))
    assert steps - 2 <= waited <= steps + 1
    loop.drain()


def test_the_queue_is_served_at_once_when_enough_wait() -> None:
    loop = Loop(waiting_served_ratio=0.5, max_waiting_tokens=50, cheap_rows=0)
    running(loop, 4)
    first = loop.submit([40], 4)
    for _ in range(5):
        loop.step()
    assert first.state is State.WAITING
    second = loop.submit([41], 4)
    loop.step()
    assert first.state is State.RUNNING and second.state is State.RUNNING
    loop.drain()


def test_what_makes_a_step_little_longer_waits_for_no_turn() -> None:
    loop = Loop(waiting_served_ratio=10.0, max_waiting_tokens=50, cheap_rows=10)
    running(loop, 4)
    burst = [loop.submit([40 + i] * 4, 4) for i in range(3)]
    loop.step()
    assert [sequence.state for sequence in burst] == [State.RUNNING, State.RUNNING, State.WAITING]
    assert loop.plans[-1].prefill_tokens == 6
    loop.drain()


def test_waiting_for_a_prefix_does_not_make_it_the_queue_s_turn() -> None:
    loop = Loop(waiting_served_ratio=10.0, max_waiting_tokens=50, cheap_rows=10)
    running(loop, 4)
    loop.submit([40] * 5, 4)
    loop.submit([40] * 5, 4)  # its first block is being computed
    loop.step()
    for index in range(6):
        loop.submit([30 + index] * 3, 4)
    for _ in range(3):
        plan = loop.step()
        assert plan is not None and plan.prefill_tokens + len(plan.decode) <= 10
    loop.drain()


def test_an_empty_batch_serves_the_queue_at_once() -> None:
    loop = Loop(waiting_served_ratio=10.0, max_waiting_tokens=50)
    sequence = loop.submit([1], 2)
    loop.step()
    assert sequence.state is not State.WAITING


def test_the_queue_s_turn_ends_with_the_last_that_waits() -> None:
    """Also where that one takes the whole budget: who comes then waits for a turn of its own."""
    loop = Loop(
        waiting_served_ratio=0.5, max_waiting_tokens=9, max_batch_prefill_tokens=4, cheap_rows=0
    )
    running(loop, 2)
    served = loop.submit([10, 11, 12, 13], 20)
    loop.step()
    assert served.state is State.RUNNING
    late = loop.submit([20, 21, 22, 23], 20)
    loop.step()
    assert late.state is State.WAITING
    for _ in range(9):
        loop.step()
    assert late.state is State.RUNNING


def test_the_queue_s_turn_lasts_beyond_one_prefill_budget() -> None:
    loop = Loop(
        waiting_served_ratio=1.0, max_waiting_tokens=30, max_batch_prefill_tokens=4, block_size=16
    )
    running(loop, 3)
    burst = [loop.submit([10 + i] * 4, 4) for i in range(4)]
    for _ in range(4):
        loop.step()
    assert all(sequence.state is not State.WAITING for sequence in burst)
    loop.drain()


def test_priority_orders_the_queue() -> None:
    loop = Loop(max_batch_size=1)
    running(loop, 1, tokens=10)
    low, high = loop.submit([2], 2, priority=-1), loop.submit([3], 2, priority=1)
    while high.state is not State.ENDED:
        assert low.state is State.WAITING
        loop.step()
    loop.drain()


def test_waiting_outweighs_priority_in_the_end() -> None:
    """A later request overtakes only while its head start lasts, so nobody starves."""
    loop = Loop(max_batch_size=1)
    running(loop, 1, tokens=5)
    old = loop.submit([2], 2, priority=0)
    loop.now += 3 * SECONDS_PER_PRIORITY
    urgent, later = loop.submit([3], 2, priority=4), loop.submit([4], 2, priority=2)
    order = sorted([old, urgent, later], key=lambda sequence: sequence.order)
    assert order == [urgent, old, later]
    loop.drain()
    admitted = [s.admitted_at for s in order]
    assert admitted == sorted(admitted)  # type: ignore[type-var]


def test_the_youngest_of_the_lowest_priority_is_preempted() -> None:
    loop = Loop(num_blocks=10, block_size=2, prefix_cache=False)
    keep = loop.submit([1, 2], 12, priority=1)
    loop.now += 0.1
    old = loop.submit([3, 4], 12)
    loop.now += 0.1
    young = loop.submit([5, 6], 12)
    while not loop.scheduler.preemptions:
        loop.step()
    assert young.state in (State.WAITING, State.SETTLING)
    assert keep.state is State.RUNNING and old.state is State.RUNNING
    loop.drain()
    assert loop.scheduler.preemptions >= 1


def test_a_preempted_sequence_resumes_from_cached_blocks() -> None:
    loop = Loop(num_blocks=14, block_size=2)
    sequences = [loop.submit([index * 4 + 1, 2, 3, 4], 9) for index in range(3)]
    batch = []
    while not loop.scheduler.idle:
        if plan := loop.step():
            batch += [running for running in plan.admit if running.sequence.generated]
    assert loop.scheduler.preemptions > 0
    assert any(running.cached > 0 for running in batch), "everything was computed again"
    assert all(sequence.state is State.ENDED for sequence in sequences)


def test_a_sequence_preempted_ahead_of_its_results_comes_back() -> None:
    loop = Loop(num_blocks=10, block_size=2, prefix_cache=False)
    sequences = [loop.submit([index, 1], 12) for index in range(3)]
    settling = False
    while not settling:
        while len(loop.results) < 3 and loop.plan():
            pass
        settling = any(sequence.state is State.SETTLING for sequence in sequences)
        loop.commit()
    loop.drain()


def test_those_that_leave_the_queue_are_forgotten_while_no_slot_is_free() -> None:
    loop = Loop(max_batch_size=1)
    running(loop, 1, tokens=10)
    stays = [loop.submit([2], 2, priority=priority) for priority in (0, 3)]
    for _ in range(300):
        loop.cancel(loop.submit([1] * 20, 2).id)
        loop.scheduler.check_integrity()
    loop.drain()
    assert all(sequence.generated == 2 for sequence in stays)


def test_the_last_one_that_is_preempted_is_admitted_again_at_once() -> None:
    """With nothing under way there is no result that would lead to another plan."""
    loop = Loop(num_blocks=3, block_size=2, max_batch_size=1)
    twins = [loop.submit([1], 3) for _ in range(2)]
    while loop.results or loop.live:
        assert loop.step() is not None
    assert loop.scheduler.preemptions == 1  # the second holds a copy of the first one's block
    assert all(twin.generated == 3 for twin in twins)


def test_a_burst_of_equal_prompts_computes_the_shared_blocks_once() -> None:
    loop = Loop(num_blocks=200, max_batch_prefill_tokens=1000)
    prompt = [i % 40 for i in range(41)]
    for _ in range(8):
        loop.submit(prompt, 4)
    loop.drain()
    computed = sum(plan.prefill_tokens for plan in loop.plans)
    assert computed == 41 + 7  # whole once, and the last token of each of the others


def test_a_plan_admits_no_more_tokens_than_a_message_carries() -> None:
    """A hundred sequences that share 100 thousand tokens need few blocks and little computing, but
    each prompt goes to the shards whole: a message beyond their limit would end the server."""
    loop = Loop(num_blocks=64, block_size=4, max_batch_size=8, max_admitted_tokens=100)
    shared = [index % 40 + 1 for index in range(40)]
    loop.submit(shared, 2)
    loop.drain()
    burst = [loop.submit([*shared, 41 + index % 9], 6) for index in range(8)]
    while any(sequence.state is State.WAITING for sequence in burst):
        loop.step()
    admitted = [[running.sequence.length for running in plan.admit] for plan in loop.plans[-4:]]
    assert [len(lengths) for lengths in admitted] == [2, 2, 2, 2]  # one step after the other
    alone = loop.submit([5] * 150, 2)  # more than that is carried alone
    loop.drain()
    assert alone.state is State.ENDED


def test_a_burst_of_cached_prompts_takes_small_steps() -> None:
    """A token is left of each: a step of all would be small, but for its many chunks."""
    loop = Loop(num_blocks=900, max_batch_size=150, max_batch_prefill_tokens=200)
    prompt = [i % 40 for i in range(41)]
    loop.submit(prompt, 2)
    loop.drain()
    before = len(loop.plans)
    for _ in range(150):
        loop.submit(prompt, 6)
    loop.drain()
    chunks = [len(plan.chunks) for plan in loop.plans[before:]]
    assert chunks[:4] == [64, 64, 22, 0]  # one after the other


def test_requests_with_other_prompts_pass_those_that_wait_for_a_prefix() -> None:
    loop = Loop(num_blocks=200, max_batch_prefill_tokens=48)
    prompt = [i % 40 for i in range(41)]
    first, second = loop.submit(prompt, 4), loop.submit(prompt, 4)
    other = loop.submit([45, 46], 4)
    loop.plan()
    assert first.state is State.RUNNING and other.state is State.RUNNING
    assert second.state is State.WAITING
    loop.drain()
    assert second.cached_tokens == 40


def test_generated_tokens_serve_a_follow_up_prompt() -> None:
    loop = Loop()
    first = loop.submit([1, 2, 3, 4], 13)
    loop.drain()
    conversation = [*loop.ended[0].request.prompt, *loop.ended[0].tokens]
    follow_up = loop.submit([*conversation, 30, 31], 2)
    loop.drain()
    assert first.length == 17
    assert follow_up.cached_tokens == 16


@pytest.mark.parametrize(("common", "cached"), [(24, 24), (29, 29), (25, 25), (16, 16), (32, 32)])
def test_a_prompt_that_parts_from_another_within_a_block(common: int, cached: int) -> None:
    """It computes no more than what differs; the model checks what the copied block holds."""
    loop = Loop(num_blocks=200, block_size=8)
    loop.submit(list(range(36)), 2)
    loop.drain()
    second = loop.submit([*range(common), *([48] * (36 - common))], 2)
    loop.drain()
    assert second.cached_tokens == cached


def test_a_token_in_common_is_worth_no_copy_of_a_long_block() -> None:
    loop = Loop(num_blocks=200, block_size=16)
    loop.submit(list(range(36)), 2)
    loop.drain()
    second, third = (loop.submit([*range(n), *([48] * 9)], 2) for n in (17, 18))
    loop.drain()
    assert (second.cached_tokens, third.cached_tokens) == (16, 18)


def test_salts_do_not_share() -> None:
    loop = Loop()
    prompt = list(range(20))
    loop.submit(prompt, 2, cache_salt=b"a")
    loop.drain()
    other = loop.submit(prompt, 2, cache_salt=b"b")
    same = loop.submit(prompt, 2, cache_salt=b"a")
    loop.drain()
    assert other.cached_tokens == 0 and same.cached_tokens == 19


def test_without_the_prefix_cache_nothing_is_shared() -> None:
    loop = Loop(prefix_cache=False)
    for _ in range(2):
        sequence = loop.submit(list(range(20)), 2)
        loop.drain()
    assert sequence.cached_tokens == 0
    assert loop.scheduler.blocks.cache.size == 0


def test_a_slot_is_free_once_its_last_step_is_planned() -> None:
    loop = Loop(max_batch_size=1)
    loop.submit([1], 1)
    second = loop.submit([2], 1)
    loop.plan()
    loop.plan()  # before the first result is in
    assert second.state is State.RUNNING
    loop.drain()


def test_several_steps_are_granted_while_nothing_waits() -> None:
    loop = Loop(grant_seconds=0.004, block_size=8)
    loop.submit([1], 30)
    loop.step()
    loop.step()
    plan = loop.step()
    assert plan is not None and plan.repeat == 4
    loop.submit([2], 5)
    plan = loop.step()
    assert plan is not None and plan.repeat == 1
    loop.drain()
    assert loop.plans[-1].last_step == loop.shard.next_step - 1


def test_a_late_stop_drops_what_was_computed_since() -> None:
    loop = Loop()
    sequence = loop.submit([1], 20)
    for _ in range(3):
        loop.plan()
    loop.commit()
    loop.stop(sequence)
    loop.drain()
    assert loop.ended[0].finish is FinishReason.STOP and len(loop.ended[0].tokens) == 1


def test_a_result_that_is_not_due_is_refused() -> None:
    loop = Loop()
    with pytest.raises(ValueError, match="none is due"):
        loop.scheduler.commit(1, [1], 0.0)
    loop.submit([1], 4)
    loop.plan()
    with pytest.raises(ValueError, match="does not fit"):
        loop.scheduler.commit(2, [1], 0.0)


def test_the_longest_request_runs_alone_in_the_smallest_pool() -> None:
    loop = Loop(num_blocks=6, block_size=4)
    others = [loop.submit([i], 3) for i in range(3)]
    longest = loop.submit([9] * 12, 8)
    loop.drain()
    assert longest.generated == 8 and all(other.generated == 3 for other in others)


def test_end_all_ends_everything() -> None:
    loop = Loop(max_batch_size=2)
    for index in range(5):
        loop.submit([index], 9)
    loop.plan()
    assert len(loop.scheduler.end_all()) == 5
    assert loop.scheduler.idle and loop.scheduler.blocks.used == 0
    loop.scheduler.check_integrity()
