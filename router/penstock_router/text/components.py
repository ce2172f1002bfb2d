"""The parts of tokenizer.json that may be sequences: normalizer, pre_tokenizer, decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def components(part: Mapping[str, Any] | None, name: str) -> Iterator[Mapping[str, Any]]:
    """A part, or what a sequence holds under `name`, in sequences within it too."""
    if part is None:
        return
    if part.get("type") == "Sequence":
        for one in part.get(name) or ():
            yield from components(one, name)
    else:
        yield part
