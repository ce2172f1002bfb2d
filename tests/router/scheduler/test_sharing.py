"""Which sequences are told to read blocks together."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_router.request import GenerationRequest, Sampling
from penstock_router.scheduler import Sequence
from penstock_router.scheduler.prefix_cache import Node
from penstock_router.scheduler.sequence import RunningSequence
from penstock_router.scheduler.sharing import WORTH_TOKENS, group_by_prefix

BLOCK = 64


def running(blocks: list[int], cached: int) -> RunningSequence:
    """With these blocks, of which so many came from the cache."""
    request = GenerationRequest(prompt=[1], max_new_tokens=1, sampling=Sampling())
    made = RunningSequence(
        Sequence(1, request, None, 0.0, 0.0), 0, Node(None, b"", -1), blocks, cached * BLOCK
    )
    made.note_table()
    return made


def shared_blocks(members: list[RunningSequence]) -> int:
    depth = 0
    for column in zip(*(member.blocks for member in members), strict=False):
        if len(set(column)) > 1:
            break
        depth += 1
    return depth


def test_those_behind_one_prefix_are_a_group() -> None:
    prefix = list(range(1, 16))
    first = running([*prefix, 100, 101], 0)  # who computed it
    others = [running([*prefix, 200 + i], 15) for i in range(5)]
    alone = [running([300 + i, 301 + i], 0) for i in range(3)]
    order, groups = group_by_prefix([alone[0], *others[:2], first, alone[1], *others[2:]], BLOCK)
    assert groups == [(6, 15)]
    assert set(map(id, order[:6])) == set(map(id, [first, *others]))
    assert order[6:] == alone[:2]


def test_a_deep_prefix_of_few_beats_a_short_one_of_many_when_it_saves_more() -> None:
    system = [1]
    examples = [*system, *range(10, 60)]
    deep = [running([*examples, 100 + i], 51) for i in range(4)]
    shallow = [running([*system, 200 + i], 1) for i in range(4)]
    order, groups = group_by_prefix(shallow + deep, BLOCK)
    # Seen from the first: with all others it shares one block.
    assert groups == [(8, 1)] or groups[0] == (4, 51)
    order, groups = group_by_prefix(deep + shallow, BLOCK)
    assert groups[0] == (4, 51)
    assert order[:4] == deep


def test_what_saves_little_is_left_alone() -> None:
    blocks = WORTH_TOKENS // BLOCK
    few = [running([*range(1, blocks), 100 + i], blocks - 1) for i in range(2)]
    assert group_by_prefix(few, BLOCK) == (few, [])
    more = [running([*range(1, blocks + 1), 100 + i], blocks) for i in range(2)]
    assert group_by_prefix(more, BLOCK)[1] == [(2, blocks)]


def test_without_hits_nothing_is_compared_or_moved() -> None:
    batch = [running([1 + 3 * i, 2 + 3 * i], 0) for i in range(50)]
    assert group_by_prefix(batch, BLOCK) == (batch, [])
    assert group_by_prefix([], BLOCK) == ([], [])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_groups_really_share_and_nobody_is_lost(seed: int, count: int) -> None:
    """Paths through a random tree; each ends with a block of its own."""
    chance = random.Random(seed)
    children: dict[int, list[int]] = {}
    fresh = iter(range(1, 10**6))

    def path() -> tuple[list[int], int]:
        blocks, node = [], 0
        cached = 0
        for _ in range(chance.randrange(40)):
            known = children.setdefault(node, [])
            if known and chance.random() < 0.95:
                node = chance.choice(known)
                cached += 1 if cached == len(blocks) else 0
            else:
                node = next(fresh)
                known.append(node)
            blocks.append(node)
        return [*blocks, next(fresh)], cached

    batch = [running(*path()) for _ in range(count)]
    order, groups = group_by_prefix(batch, BLOCK)
    assert sorted(map(id, order)) == sorted(map(id, batch))
    first = 0
    for rows, blocks in groups:
        members = order[first : first + rows]
        assert rows >= 2 and 1 <= blocks <= shared_blocks(members)
        assert (rows - 1) * blocks * BLOCK >= WORTH_TOKENS
        first += rows


@pytest.mark.parametrize("rows", [64, 256])
def test_all_in_one_group(rows: int) -> None:
    prefix = list(range(1, 32))
    batch = [running([*prefix, 100 + i], 31) for i in range(rows)]
    assert group_by_prefix(batch, BLOCK) == (batch, [(rows, 31)])
