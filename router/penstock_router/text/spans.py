"""Tokens with their places in a text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import orjson

_SLICE = 1024  # tokens that become JSON before other threads get their turn


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A token of a text, and the characters start..stop of the text that it stands for."""

    id: int
    start: int
    stop: int


def spans_json(text: str, spans: Iterable[TokenSpan]) -> bytes:
    """A list of objects with the id, the place and the characters of each token."""
    tokens = iter(spans)
    slices = []
    while some := [
        {"id": s.id, "text": text[s.start : s.stop], "start": s.start, "stop": s.stop}
        for s in islice(tokens, _SLICE)
    ]:
        slices.append(orjson.dumps(some)[1:-1])
    return b"[" + b",".join(slices) + b"]"
