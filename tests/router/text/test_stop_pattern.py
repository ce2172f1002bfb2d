"""Expressions that end a text are found where Python's `re` finds the first of them to end."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_router.text.stop_pattern import StopPatterns

PATTERNS = ["ab", "a+b", "(a|b)c", "[^a]b", "a.c", "b{2,3}", "é", r"\d{2}", "a/b", "a\nb", "(?i)aB"]


def end_of(text: str, patterns: list[str]) -> tuple[int, str] | None:
    """How long a beginning must be for one of them to be found in it, and which it is."""
    for end in range(1, len(text) + 1):
        for pattern in patterns:
            if re.search(pattern, text[:end]):
                return end, pattern
    return None


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2, unique=True),
    st.text("abcB1é/\n", max_size=12),
    st.sets(st.integers(1, 11)),
)
def test_it_ends_where_the_first_is_complete(
    patterns: list[str], text: str, cuts: set[int]
) -> None:
    search = StopPatterns(patterns).search()
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    wanted = end_of(text, patterns)
    for start, stop in zip(places, places[1:], strict=False):
        if search.feed(text[start:stop]):
            assert wanted is not None and start < wanted[0] <= stop
            assert search.found in patterns and re.search(search.found, text[:stop])
            return
    assert wanted is None


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(?=a)b", "look-around"),
        (r"\bfoo", "lookarounds"),
        (r"(a)\1", "backreferences"),
        ("a(", "unclosed group"),
        ("a*", "must not match the empty text"),
        ("(", "cannot be used"),
    ],
)
def test_what_cannot_be_searched_is_said(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StopPatterns([pattern])


def test_hostile_expressions_end() -> None:
    """In linear time, or they fail."""
    for pattern in ("(x+x+)+y", "(x?){200}x{200}y", "((x{1,50}){1,50}){1,50}y", ".*x.{30}y"):
        try:
            search = StopPatterns([pattern]).search()
        except ValueError:
            continue
        for _ in range(2000):
            if search.feed("xxxx"):
                assert search.failed
                break
        else:
            assert search.found is None
