"""Every contradiction in a command ends it before a tensor is touched, in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock_proto import shard_pb2
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.rows import Chunks
from penstock_shard.steps.slots import BadCommand, HostSlots
from support.shard_driver import admission

LIMITS = ShardLimits(
    max_prefill_tokens=16,
    max_slots=4,
    max_sequence_length=20,
    max_top_n=5,
    vocab_size=100,
    block_size=4,
    num_blocks=30,
)


def apply(book: HostSlots, **fields: Any) -> Chunks:
    """As the runner does."""
    fields.setdefault("repeat", 1)
    fields.setdefault("step", book.next_step)
    command = shard_pb2.StepCommand(**fields)
    book.begin(command)
    if command.release:
        book.release(np.array(command.release, np.int64))
    book.copy(command.copy_from, command.copy_to)
    for one in command.admit:
        book.admit(one)
    if command.grant_slot or command.grant_block:
        book.grant(np.array(command.grant_slot, np.int64), np.array(command.grant_block, np.int64))
    return book.run(command)[0]


def step(book: HostSlots, **fields: Any) -> shard_pb2.StepCommand:
    """A command that goes on."""
    return shard_pb2.StepCommand(step=book.next_step, repeat=1, **fields)


@pytest.fixture
def book() -> HostSlots:
    """Slot 0 decodes after 6 tokens in 2 blocks; slot 1 has 3 of 9 tokens computed in 3 blocks."""
    book = HostSlots(LIMITS)
    apply(
        book,
        admit=[admission(0, [1] * 6, [1, 2]), admission(1, [2] * 9, [3, 4, 5])],
        chunk_slot=[0, 1],
        chunk_length=[6, 3],
    )
    apply(book, decode_changed=True, decode=[0])
    return book


def admit(slot: int = 2, tokens: int = 5, blocks: Any = (6, 7), **fields: Any) -> dict[str, Any]:
    return {"admit": [admission(slot, [3] * tokens, list(blocks), **fields)]}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "step_skipped": ({"step": 4}, "step must be 3, not 4"),
    "step_again": ({"step": 2}, "step must be 3, not 2"),
    "no_repeat": ({"repeat": 0}, "repeat must be at least 1, not 0"),
    "repeat_with_chunks": (
        {"repeat": 2, "chunk_slot": [1], "chunk_length": [1]},
        "repeat must be 1 in a step with chunks",
    ),
    "release_free": ({"release": [3]}, "release names the free slot 3"),
    "release_beyond": ({"release": [4]}, r"release must be in \[0, 4\), not 4"),
    "admit_beyond": (admit(slot=4), "admit.slot must be below 4, not 4"),
    "admit_taken": (admit(slot=1), "admit.slot 1 is taken"),
    "block_scratch": (admit(blocks=[0]), r"admit.blocks must be in \[1, 30\), not 0"),
    "block_beyond": (admit(blocks=[30]), r"admit.blocks must be in \[1, 30\), not 30"),
    "too_many_blocks": (admit(blocks=range(6, 12)), "must number at most 5, not 6"),
    "no_prompt": (admit(generated=5), "request of slot 2 has no prompt"),
    "all_cached": (admit(cached=5), "must be below its 5 tokens"),
    "cached_nowhere": (admit(tokens=12, cached=9), "stand in its 2 blocks"),
    "not_copied": (admit(cached=3), "no copy to block 6 of slot 2, which has 3 cached tokens"),
    "copied_elsewhere": (
        admit(cached=3) | {"copy_from": [1], "copy_to": [7]},
        "no copy to block 6 of slot 2, which has 3 cached tokens",
    ),
    "copy_uneven": ({"copy_from": [1], "copy_to": [2, 3]}, "1 copy_from for 2 copy_to"),
    "copy_from_scratch": (
        {"copy_from": [0], "copy_to": [7]},
        r"copy_from must be in \[1, 30\), not 0",
    ),
    "copy_beyond": ({"copy_from": [1], "copy_to": [30]}, r"copy_to must be in \[1, 30\), not 30"),
    "cached_logprobs": (
        admit(cached=4, prompt_logprobs=True),
        "admit.cached 4 of slot 2 must be at most its prompt_logprobs_start, 0",
    ),
    "grant_uneven": ({"grant_slot": [0], "grant_block": [8, 9]}, "1 grant_slot for 2 grant_block"),
    "grant_free": ({"grant_slot": [2], "grant_block": [8]}, "grant_slot names the free slot 2"),
    "grant_beyond": ({"grant_slot": [9], "grant_block": [8]}, r"grant_slot must be in \[0, 4\)"),
    "grant_scratch": ({"grant_slot": [0], "grant_block": [0]}, r"grant_block must be in \[1, 30\)"),
    "grant_too_many": (
        {"grant_slot": [1, 1, 1], "grant_block": [8, 9, 10]},
        "slot 1 has more than 5 blocks",
    ),
    "decode_free": ({"decode_changed": True, "decode": [3]}, "decode names the free slot 3"),
    "decode_beyond": ({"decode_changed": True, "decode": [4]}, r"decode must be in \[0, 4\)"),
    "decode_twice": ({"decode_changed": True, "decode": [0, 0]}, "decode names a slot twice"),
    "decode_unfinished": (
        {"decode_changed": True, "decode": [0, 1]},
        "whose prompt is not computed",
    ),
    "decode_released": ({"release": [0]}, "decode lists a slot that is free"),
    "decode_no_room": ({"repeat": 2}, "slot 0 has blocks for 8 tokens and needs 9"),
    "chunk_uneven": ({"chunk_slot": [1]}, "1 chunk_slot for 0 chunk_length"),
    "chunk_free": ({"chunk_slot": [2], "chunk_length": [1]}, "chunk_slot names the free slot 2"),
    "chunk_twice": ({"chunk_slot": [1, 1], "chunk_length": [1, 1]}, "chunk_slot names a slot"),
    "chunk_empty": ({"chunk_slot": [1], "chunk_length": [0]}, "at least 1 each"),
    "chunk_budget": ({"chunk_slot": [1], "chunk_length": [17]}, "16 in all"),
    "chunk_too_long": (
        {"chunk_slot": [1], "chunk_length": [7]},
        r"chunk_length \[7\] exceeds \[6\] tokens left",
    ),
    "chunk_no_room": (
        admit(tokens=9) | {"chunk_slot": [2], "chunk_length": [9]},
        "slot 2 has blocks for 8 tokens and needs 9",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_are_refused(book: HostSlots, name: str) -> None:
    fields, message = REFUSED[name]
    with pytest.raises(BadCommand, match=message):
        apply(book, **fields)


def test_chunks_go_on_where_they_stopped(book: HostSlots) -> None:
    chunks = apply(book, chunk_slot=[1], chunk_length=[4])
    assert chunks.starts.tolist() == [3] and chunks.complete.tolist() == [False]
    chunks = apply(book, decode_changed=True, chunk_slot=[1], chunk_length=[2])
    assert chunks.starts.tolist() == [7] and chunks.complete.tolist() == [True]
    assert book.computed.tolist()[:2] == [8, 9]


def test_grants_of_one_command_take_the_next_columns(book: HostSlots) -> None:
    slots, columns, blocks = book.grant(np.array([1, 0, 1]), np.array([8, 9, 10]))
    assert [slots.tolist(), columns.tolist(), blocks.tolist()] == [[1, 0, 1], [3, 2, 4], [8, 9, 10]]
    assert book.blocks.tolist()[:2] == [3, 5]


def test_a_slot_may_be_released_and_filled_at_once(book: HostSlots) -> None:
    apply(book, release=[0], decode_changed=True, **admit(slot=0, tokens=3, blocks=[6]))
    assert book.active[0] and book.known[0] == 3 and book.computed[0] == 0 and book.blocks[0] == 1


def test_repeats_count_as_steps(book: HostSlots) -> None:
    apply(book, repeat=5, grant_slot=[0], grant_block=[8])
    assert book.next_step == 8 and book.computed[0] == 12
    with pytest.raises(BadCommand, match="needs 13"):
        apply(book)


def test_a_refused_slot_is_counted_and_not_computed(book: HostSlots) -> None:
    """Its tokens, blocks and groups may be anything; its rows stand where the router expects them,
    until it is released."""
    book.refuse(admission(2, [7] * 26, range(50)))  # longer than any sequence
    granted = book.grant(np.array([2, 0]), np.array([9, 8]))
    assert [part.tolist() for part in granted] == [[0], [2], [8]]
    chunks, rows = book.run(step(book, chunk_slot=[2, 1], chunk_length=[10, 6]))
    assert chunks.slots.tolist() == [1] and chunks.complete.tolist() == [True]
    assert rows.slots.tolist() == [0, 1] and rows.spread(np.array([5, 6])).tolist() == [5, 6]
    _, rows = book.run(step(book, chunk_slot=[2], chunk_length=[16]))
    assert rows.slots.tolist() == [0, 2] and rows.spread(np.array([5])).tolist() == [5, 0]
    listed = {"decode_changed": True, "decode": [2, 1, 0]}
    chunks, rows = book.run(step(book, group_rows=[2], group_blocks=[2], **listed))
    assert book.decode.tolist() == [1, 0] and not len(chunks.slots)
    assert book.group_rows.tolist() == [1] and book.group_blocks.tolist() == [2]
    assert rows.slots.tolist() == [2, 1, 0] and rows.spread(np.array([5, 6])).tolist() == [0, 5, 6]
    book.release(np.array([2]))
    assert not book.refused
    with pytest.raises(BadCommand, match="decode names the free slot 2"):
        book.run(step(book, **listed))


def test_a_group_of_refused_slots_is_none(book: HostSlots) -> None:
    for slot in (2, 3):
        book.refuse(admission(slot, [], []))
    listed = {"decode_changed": True, "decode": [2, 3, 0]}
    book.run(step(book, group_rows=[2], group_blocks=[4], **listed))
    assert book.decode.tolist() == [0] and not len(book.group_rows) and not len(book.group_blocks)
