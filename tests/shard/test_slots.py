"""Every contradiction in a command is refused before a tensor is touched, in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock_proto import shard_pb2
from penstock_shard.slots import BadCommand, Chunks, Limits, SlotBook
from support.shard_driver import admission

LIMITS = Limits(
    max_prefill_tokens=16,
    max_slots=4,
    max_sequence_length=20,
    max_top_n=5,
    vocab_size=100,
    block_size=4,
    num_blocks=30,
)


def apply(book: SlotBook, **fields: Any) -> Chunks:
    """As the runner does."""
    fields.setdefault("repeat", 1)
    fields.setdefault("step", book.next_step)
    command = shard_pb2.StepCommand(**fields)
    book.begin(command)
    if command.release:
        book.release(np.array(command.release, np.int64))
    for one in command.admit:
        book.admit(one)
    if command.grant_slot or command.grant_block:
        book.grant(np.array(command.grant_slot, np.int64), np.array(command.grant_block, np.int64))
    return book.run(command)


@pytest.fixture
def book() -> SlotBook:
    """Slot 0 decodes after 6 tokens in 2 blocks; slot 1 has 3 of 9 tokens computed in 3 blocks."""
    book = SlotBook(LIMITS)
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
    "admit_empty": (admit(tokens=0), "must number 1 to 20, not 0"),
    "admit_too_long": (admit(tokens=21), "must number 1 to 20, not 21"),
    "token_beyond": (
        {"admit": [admission(2, [5, 100], [6])]},
        r"admit.tokens must be in \[0, 100\), not 100",
    ),
    "token_negative": (
        {"admit": [admission(2, [-1], [6])]},
        r"admit.tokens must be in \[0, 100\), not -1",
    ),
    "block_scratch": (admit(blocks=[0]), r"admit.blocks must be in \[1, 30\), not 0"),
    "block_beyond": (admit(blocks=[30]), r"admit.blocks must be in \[1, 30\), not 30"),
    "too_many_blocks": (admit(blocks=range(6, 12)), "must number at most 5, not 6"),
    "no_prompt": (admit(generated=5), "leaves slot 2 no prompt"),
    "all_cached": (admit(cached=5), "must be below its 5 tokens"),
    "cached_nowhere": (admit(tokens=12, cached=9), "stand in its 2 blocks"),
    "begun_nowhere": (admit(cached=3), "admit.begun 0 of slot 2 with 3 cached tokens"),
    "begun_for_nothing": (admit(cached=4, begun=6), "admit.begun 6 of slot 2 with 4 cached tokens"),
    "begun_beyond": (admit(cached=3, begun=30), r"admit.begun must be in \[0, 30\), not 30"),
    "cached_logprobs": (
        admit(cached=4, prompt_logprobs=True),
        "prompt_logprobs of slot 2 excludes cached tokens",
    ),
    "prompt_top_n": (admit(prompt_top_n=6), "prompt_top_n of slot 2 must be at most 5, not 6"),
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
def test_contradictions_are_refused(book: SlotBook, name: str) -> None:
    fields, message = REFUSED[name]
    with pytest.raises(BadCommand, match=message):
        apply(book, **fields)


def test_chunks_go_on_where_they_stopped(book: SlotBook) -> None:
    chunks = apply(book, chunk_slot=[1], chunk_length=[4])
    assert chunks.starts.tolist() == [3] and chunks.complete.tolist() == [False]
    chunks = apply(book, decode_changed=True, chunk_slot=[1], chunk_length=[2])
    assert chunks.starts.tolist() == [7] and chunks.complete.tolist() == [True]
    assert book.computed.tolist()[:2] == [8, 9]


def test_grants_of_one_command_take_the_next_columns(book: SlotBook) -> None:
    columns = book.grant(np.array([1, 0, 1]), np.array([8, 9, 10]))
    assert columns.tolist() == [3, 2, 4]
    assert book.blocks.tolist()[:2] == [3, 5]


def test_a_slot_may_be_released_and_filled_at_once(book: SlotBook) -> None:
    apply(book, release=[0], decode_changed=True, **admit(slot=0, tokens=3, blocks=[6]))
    assert book.active[0] and book.known[0] == 3 and book.computed[0] == 0 and book.blocks[0] == 1


def test_repeats_count_as_steps(book: SlotBook) -> None:
    apply(book, repeat=5, grant_slot=[0], grant_block=[8])
    assert book.next_step == 8 and book.computed[0] == 12
    with pytest.raises(BadCommand, match="needs 13"):
        apply(book)
