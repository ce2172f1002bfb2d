"""Counting what a body holds agrees with parsing it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_router.api import body_shape
from penstock_router.api.body_shape import (
    MOST_LEVELS,
    MOST_THINGS,
    MOST_VALUES,
    Shape,
    fault_of,
    fault_of_levels,
    shapes,
)

texts = st.text(alphabet='"\\\\[]{}:,ab\u00e9\n', max_size=12)
values = st.recursive(
    texts | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


def counted(value: object) -> Shape:
    """The same by walking what was parsed."""
    match value:
        case dict():
            keys = Shape(1, 2 * len(value), max(len(value) - 1, 0))
            return sum(map(counted, value.values()), keys)
        case list():
            return sum(map(counted, value), Shape(1, 0, max(len(value) - 1, 0)))
        case str():
            return Shape(0, 2, 0)
    return Shape()


@given(values, st.booleans(), st.sampled_from([None, 1]), st.integers(1, 40))
def test_as_a_parser_counts(
    value: object, ascii_only: bool, indent: int | None, piece: int
) -> None:
    """Wherever a body is cut into pieces."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_shape, "PIECE_BYTES", piece)
        assert sum(shapes(np.frombuffer(text, np.uint8)), Shape()) == counted(value)


def levels_of(value: object) -> int:
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    return 0 if inner is None else 1 + max(map(levels_of, inner), default=0)


@given(values, st.integers(1, 40), st.integers(1, 4))
def test_levels_are_those_of_a_parser(value: object, piece: int, most: int) -> None:
    text = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_shape, "PIECE_BYTES", piece)
        patch.setattr(body_shape, "MOST_LEVELS", most)
        assert bool(fault_of_levels(text)) == (levels_of(value) > most)


TEXT = {"inputs": 'if a["b"]: c = [{"d": []}, 1, 2, 3, 4, 5]\n' * 60_000}
THINGS = f"at most {MOST_THINGS} objects, lists and strings altogether"
LEVELS = f"at most {MOST_LEVELS} objects and lists within one another"
VALUES = f"at most {MOST_VALUES} values altogether"
BODIES: dict[str, tuple[str, str | None]] = {
    "brackets of a text": (json.dumps(TEXT), None),
    "a text behind another": (json.dumps([TEXT["inputs"], "[" * 2 * MOST_THINGS]), None),
    "lists": ("[" + "[]," * MOST_THINGS + "[]]", THINGS),
    "strings": ("[" + '"a",' * MOST_THINGS + '"a"]', THINGS),
    "keys": (json.dumps({str(i): 0 for i in range(MOST_THINGS)}), THINGS),
    "fewer strings": ("[" + '"a",' * (MOST_THINGS - 2) + '"a"]', None),
    "numbers": ("[" + "1.5," * MOST_VALUES + "1]", VALUES),
    "as many token ids": (json.dumps({"prompt": [128_000] * MOST_VALUES}), None),
    "levels": ("[" * MOST_LEVELS + "]" * MOST_LEVELS, None),
    "one level more": ("[" * MOST_LEVELS + '{"a": 1}' + "]" * MOST_LEVELS, LEVELS),
    "null": ("[" + "null," * MOST_VALUES + "null]", VALUES),
}


@pytest.mark.parametrize("row", BODIES)
def test_what_is_too_much(row: str) -> None:
    text, fault = BODIES[row]
    assert fault_of(text.encode()) == fault


def test_a_prompt_of_ids_may_be_as_long_as_the_model_takes() -> None:
    ids = json.dumps([1] * (MOST_VALUES + 1)).encode()
    assert fault_of(ids) == VALUES
    assert fault_of(ids, most_values=MOST_VALUES + 1) is None


def test_the_rest_of_a_body_is_not_looked_at() -> None:
    """It ends at the first piece that is too much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_shape, "PIECE_BYTES", 2 * 3 * MOST_THINGS)
        seen: list[int] = []
        follow = body_shape._Strings.follow
        patch.setattr(
            body_shape._Strings,
            "follow",
            lambda self, text: seen.append(len(text)) or follow(self, text),
        )
        assert fault_of(b"[" + b"[]," * 8 * MOST_THINGS + b"1]") == THINGS
    assert len(seen) == 1
