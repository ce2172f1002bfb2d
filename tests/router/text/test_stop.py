from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_router.text.stop import StopMatcher, _failure_table

LETTERS = st.text("ab", min_size=1, max_size=5)


def feed(sequences: list[str], pieces: list[str]) -> tuple[int | None, StopMatcher]:
    """Where the first stop sequence ends in the joined pieces."""
    matcher = StopMatcher(sequences)
    position = 0
    for piece in pieces:
        if (end := matcher.feed(piece)) is not None:
            return position + end, matcher
        position += len(piece)
    return None, matcher


@given(
    sequences=st.lists(LETTERS, min_size=1, max_size=4), pieces=st.lists(st.text("ab"), max_size=8)
)
def test_finds_the_first_end(sequences: list[str], pieces: list[str]) -> None:
    """Two letters make overlaps likely; the naive search is the judge."""
    text = "".join(pieces)
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in sequences)]
    found, matcher = feed(sequences, pieces)
    assert found == (ends[0] if ends else None)
    if found is None:
        beginnings = {s[:k] for s in sequences for k in range(len(s))}
        assert matcher.held == max(len(b) for b in beginnings if text.endswith(b))
    else:
        assert matcher.matched == max(len(s) for s in sequences if text[:found].endswith(s))


@pytest.mark.parametrize("pieces", [["xx\n\nUser"], ["xx\n", "\nUser"], list("xx\n\nUser")])
def test_across_and_inside_tokens(pieces: list[str]) -> None:
    found, matcher = feed(["\n\n"], pieces)
    assert (found, matcher.matched) == (4, 2)


def test_looks_at_each_character_once() -> None:
    """A long text that nearly matches all the time stays linear: a thousand pieces in a moment."""
    found, matcher = feed(["a" * 1000 + "b"], ["a" * 100] * 1000)
    assert found is None and matcher.held == 1000


def test_sequences_of_a_request_share_what_is_made_of_its_stop_sequences() -> None:
    stops = [f"{'ab' * 500}{place}" for place in range(16)]
    before = _failure_table.cache_info().misses
    for _ in range(128):
        StopMatcher(stops)
    assert _failure_table.cache_info().misses - before == len(stops)
