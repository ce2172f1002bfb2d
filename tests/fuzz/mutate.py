"""Other inputs from those that are known: bytes changed here and there, or a JSON tree."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

MOST_BYTES = 64 * 1024
NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63)
NUMBERS += (2**63 - 1, 2**64 - 1, 2**64, -(2**31), -(2**63), 10**30)
ODD: tuple[Any, ...] = (
    *NUMBERS, None, True, False, "", "x", "\0", "\u202e", "\U0001f600", "\ud800", "a" * 3000, "1",
    1e308, -0.0, 5e-324, float("nan"), float("inf"), [], {}, [[]], [None], {"": None},
    "{{ 1 }}", "../../etc/passwd", "<|im_end|>", "</s>", "(a+)+$",
)  # fmt: skip


def mutated(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The bytes with a few changes. others: of which parts may come in."""
    for _ in range(1 << chance.randrange(4)):
        data = chance.choice(_CHANGES)(chance, data, others)
    return data[:MOST_BYTES]


def mutated_json(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """JSON with a few changes of its tree; sometimes of its bytes."""
    if chance.random() < 0.2:
        return mutated(chance, data, others)
    try:
        for _ in range(1 << chance.randrange(3)):
            if len(data) <= MOST_BYTES:  # else what is repeated again would never end
                data = json.dumps(_grown(chance, json.loads(data), others)).encode()
        return data[:MOST_BYTES]
    except (ValueError, RecursionError):  # no JSON, or deeper than Python goes
        return mutated(chance, data, others)


# -- bytes -------------------------------------------------------------------------------------

Change = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def _place(chance: random.Random, data: bytes) -> int:
    return chance.randrange(len(data) + 1)


def _flip(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if not data:
        return data
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]


def _insert(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    place = _place(chance, data)
    return data[:place] + chance.randbytes(chance.randrange(1, 9)) + data[place:]


def _cut(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start = _place(chance, data)
    return data[:start] + data[start + chance.choice((1, 2, 4, 8, 64, len(data))) :]


def _repeat(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start = _place(chance, data)
    part = data[start : start + chance.choice((1, 2, 8, 64))]
    return data[:start] + part * chance.choice((2, 3, 16, 1000)) + data[start:]


def _splice(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = chance.choice(others) if others else b""
    place, start = _place(chance, data), _place(chance, other)
    stop = start + chance.choice((4, 16, 64, len(other)))
    return data[:place] + other[start:stop] + data[place + chance.choice((0, stop - start)) :]


def _number(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A decimal number, or one of 1, 2, 4 or 8 bytes, becomes one at an edge."""
    number = chance.choice(NUMBERS)
    found = [match.span() for match in re.finditer(rb"-?\d+", data)]
    if found and chance.random() < 0.5:
        start, stop = chance.choice(found)
        return data[:start] + str(number).encode() + data[stop:]
    width = chance.choice((1, 2, 4, 8))
    place = _place(chance, data)
    encoded = (number % (1 << 8 * width)).to_bytes(width, chance.choice(("little", "big")))
    return data[:place] + encoded + data[place + width :]


_CHANGES: tuple[Change, ...] = (_flip, _flip, _insert, _cut, _repeat, _splice, _number, _number)


# -- trees -------------------------------------------------------------------------------------


def _grown(chance: random.Random, tree: Any, others: Sequence[bytes]) -> Any:
    """A tree with one change; what it is made of is not touched."""
    if isinstance(tree, dict) and tree and chance.random() < 0.9:
        return _changed_object(chance, tree, others)
    if isinstance(tree, list) and tree and chance.random() < 0.9:
        place = chance.randrange(len(tree))
        match chance.randrange(6):
            case 0:
                return tree[:place] + tree[place + 1 :]
            case 1:
                return (
                    tree[:place] + tree[place : place + 1] * chance.choice((2, 40)) + tree[place:]
                )
        return [*tree[:place], _grown(chance, tree[place], others), *tree[place + 1 :]]
    return _other(chance, tree, others)


def _changed_object(
    chance: random.Random, tree: dict[str, Any], others: Sequence[bytes]
) -> dict[str, Any]:
    key = chance.choice(list(tree))
    match chance.randrange(8):
        case 0:
            return {name: value for name, value in tree.items() if name != key}
        case 1:
            return {**tree, chance.choice(("", "x", "\0", "type", "__class__", key)): tree[key]}
        case 2:
            return {**tree, key: tree[chance.choice(list(tree))]}
    return {**tree, key: _grown(chance, tree[key], others)}


def _other(chance: random.Random, value: Any, others: Sequence[bytes]) -> Any:
    match chance.randrange(6):
        case 0:
            for _ in range(chance.choice((1, 5, 60, 400))):
                value = [value] if chance.random() < 0.5 else {"x": value}
            return value
        case 1 if isinstance(value, str):
            return mutated(chance, value.encode("utf-8", "replace"), others).decode(
                "utf-8", "replace"
            )
        case 2 if isinstance(value, int | float) and not isinstance(value, bool):
            return chance.choice((-value, value * 2, value + 1, value - 1, value / 3, str(value)))
        case 3:
            return [value] * chance.choice((2, 100))
    return chance.choice(ODD)
