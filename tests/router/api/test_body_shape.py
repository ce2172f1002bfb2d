"""Counting what a body holds agrees with parsing it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_router.api import body_shape
from penstock_router.api.body_shape import MOST_CONTAINERS_AND_KEYS, containers_and_keys

texts = st.text(alphabet='"\\\\[]{}:,ab\u00e9\n', max_size=12)
values = st.recursive(
    texts | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


def counted(value: object) -> int:
    """Objects, lists and keys, by walking what was parsed."""
    match value:
        case dict():
            return 1 + sum(1 + counted(inner) for inner in value.values())
        case list():
            return 1 + sum(map(counted, value))
    return 0


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_as_a_parser_counts(value: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_shape, "MOST_CONTAINERS_AND_KEYS", 0)  # always the exact way
        assert containers_and_keys(text) == counted(value)


def test_brackets_of_a_text_are_text() -> None:
    source = json.dumps({"inputs": 'if a["b"]: c = [{"d": []}]\n' * 40_000}).encode()
    assert source.count(b"[") > MOST_CONTAINERS_AND_KEYS
    assert containers_and_keys(source) == 2
