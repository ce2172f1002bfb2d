"""Sequences that the shards refuse: they end, and what was computed for them is shared no more."""

from __future__ import annotations

import pytest

from penstock_router.scheduler.sequence import State
from support.fake_model import FakeModelConfig, has_nan, mix
from support.scheduling import VOCABULARY, Loop

NAN_EVERY = 9


def first_nan(prompt: list[int]) -> int | None:
    """The first position whose KV is NaN."""
    state, config = 0, FakeModelConfig(nan_every=NAN_EVERY)
    for position, token in enumerate(prompt):
        state = mix(state, token)
        if has_nan(state, config):
            return position
    return None


def prompt_with_nan_at(position: int, length: int) -> list[int]:
    return next(
        prompt
        for first in range(10_000)
        if first_nan(prompt := [first % 40, first // 40 % 40, first // 1600, *range(length - 3)])
        == position
    )


def prompt_without_nan(beginning: list[int], length: int) -> list[int]:
    """One that goes on from a beginning which has none."""
    prompt = list(beginning)
    while len(prompt) < length:
        prompt.append(next(token for token in range(40) if first_nan([*prompt, token]) is None))
    return prompt


def ended(loop: Loop) -> list[bool]:
    """Whether each that has ended was refused."""
    return [generated.refused for generated in loop.ended]


def cached_blocks(loop: Loop, prompt: list[int]) -> int:
    tokens = b"".join(token.to_bytes(4, "little") for token in prompt)
    return loop.scheduler.blocks.cache.match(b"", tokens, len(prompt) // 4).depth


def test_a_token_beyond_the_vocabulary_ends_its_own_request_alone() -> None:
    """W1, C2."""
    loop = Loop()
    good = loop.submit([1, 2, 3, 4, 5], 12)
    loop.step()
    bad = loop.submit([1, 2, 3, 4, VOCABULARY], 12)
    loop.step()
    assert bad.state is State.ENDED and good.state is State.RUNNING
    loop.check()
    loop.drain()
    assert ended(loop) == [True, False] and not loop.ended[0].tokens
    assert cached_blocks(loop, [1, 2, 3, 4]) == 1, "a bad request takes nothing from the cache"


def test_results_of_steps_under_way_are_dropped() -> None:
    """Two more commands name a refused slot; its results come, and refuse it again."""
    loop = Loop(nan_every=NAN_EVERY)
    sequence = loop.submit(prompt_with_nan_at(4, 5), 12)
    for _ in range(3):
        loop.plan()
    assert len(loop.results) == 3 and all(result.refused for result in loop.results)
    loop.commit()
    assert sequence.state is State.ENDED
    loop.check()
    loop.drain()
    assert ended(loop) == [True]


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_what_a_refused_sequence_computed_is_not_shared(prefix_cache: bool) -> None:
    """Its first chunks were in the tree when the last one told that there is NaN."""
    loop = Loop(nan_every=NAN_EVERY, max_batch_prefill_tokens=8, prefix_cache=prefix_cache)
    prompt = prompt_with_nan_at(5, 24)
    loop.submit(prompt)
    for _ in range(2):
        loop.step()
    assert cached_blocks(loop, prompt) == (4 if prefix_cache else 0)
    loop.drain()
    assert ended(loop) == [True] and cached_blocks(loop, prompt) == 0


def test_what_others_computed_before_it_stays() -> None:
    """It took two blocks from the cache, and NaN came later."""
    loop = Loop(nan_every=NAN_EVERY)
    bad = prompt_with_nan_at(9, 13)
    loop.submit(bad[:9], 1)
    loop.drain()
    loop.submit(bad)
    loop.drain()
    assert ended(loop) == [False, True] and cached_blocks(loop, bad) == 2


def test_what_nobody_confirmed_leaves_the_cache_with_its_first_reader() -> None:
    """Its writer was cancelled before a token could tell. Else all who begin so would be refused,
    for as long as they ask."""
    loop = Loop(nan_every=NAN_EVERY, max_batch_prefill_tokens=8)
    bad = prompt_with_nan_at(5, 24)
    writer = loop.submit(bad)
    loop.step()
    loop.cancel(writer.id)
    assert cached_blocks(loop, bad) == 2
    reader = loop.submit([*bad[:8], 1, 2])
    loop.drain()
    assert reader.cached_tokens == 8 and ended(loop) == [True]
    assert cached_blocks(loop, bad) == 0


def test_a_block_that_nobody_confirmed_is_not_copied() -> None:
    """Whoever begins within it would be refused, and could not make the cache forget it."""
    loop = Loop(nan_every=NAN_EVERY, max_batch_prefill_tokens=8)
    bad = prompt_with_nan_at(6, 24)
    writer = loop.submit(bad)
    loop.step()
    loop.cancel(writer.id)
    reader = loop.submit(prompt_without_nan(bad[:6], 11), 1)
    loop.drain()
    assert reader.cached_tokens == 4 and ended(loop) == [False]


def test_those_who_read_it_already_keep_their_blocks_to_their_end() -> None:
    """A reader that came while it was computed is refused itself, later; until then the blocks are
    its own, and no third one finds them or what it computes behind them."""
    loop = Loop(nan_every=NAN_EVERY, max_batch_prefill_tokens=8)
    bad = prompt_with_nan_at(5, 18)
    loop.submit(bad)
    loop.step()
    loop.step()
    reader = loop.submit([*bad[:8], *range(20, 39), *range(20, 39)])
    loop.step()
    assert ended(loop) == [True] and reader.state is State.RUNNING
    used = loop.scheduler.blocks.used
    assert cached_blocks(loop, bad) == 0 and used >= 4
    loop.step()
    loop.check()
    assert cached_blocks(loop, [*bad[:8], *range(20, 39)]) == 0
    loop.drain()
    assert ended(loop) == [True, True]


def test_a_block_of_another_is_not_confirmed_by_one_who_computed_its_own() -> None:
    """Two compute the same tokens at once, the block of one is in the tree. The other reads its
    own: what comes out says nothing of the first."""
    loop = Loop(max_batch_prefill_tokens=64)
    prompt = [1, 2, 3, 4, 5, 6]
    first = loop.submit(prompt, 6, prompt_logprobs=True)
    second = loop.submit(prompt, 6, prompt_logprobs=True)
    loop.plan()
    batch = [loop.scheduler._batch.of(sequence.id) for sequence in (first, second)]
    assert batch[0] is not None and batch[1] is not None
    blocks, cache = loop.scheduler.blocks, loop.scheduler.blocks.cache
    for running in batch:
        assert running is not None
        running.computed = 4
    blocks.publish(batch[0], confirmed=False)
    blocks.publish(batch[1], confirmed=True)
    [node] = cache.nodes()
    assert node.block == batch[0].blocks[0] and not node.confirmed
    blocks.publish(batch[0], confirmed=True)
    assert node.confirmed


def test_a_refusal_of_what_is_not_in_the_step_is_an_error() -> None:
    loop = Loop()
    loop.submit([1, 2, 3])
    loop.plan()
    for step, slot in ((1, 5), (2, 0)):
        with pytest.raises(ValueError, match=f"result of step {step} refuses slot {slot}"):
            loop.scheduler.refuse(step, slot, broken=False)
    loop.commit()
