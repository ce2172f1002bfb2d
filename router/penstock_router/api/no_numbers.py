"""NaN and infinities in a body, which are no JSON, though Python's json module writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

MOST_PATH = 128  # characters

Key = str | int | None


def place_of_no_number(data: bytes) -> tuple[str, str] | None:
    """The first field of a body that is no finite number, and what it is; None where the body is
    wrong otherwise. A large body takes tenths of a second."""
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    keys: list[Key] = []
    open_values: list[Iterator[tuple[Key, object]]] = [iter([(None, found)])]
    while open_values:
        for key, value in open_values[-1]:
            if isinstance(value, float) and not math.isfinite(value):
                return _path([*keys, key]), json.dumps(value)
            if isinstance(value, dict | list):
                keys.append(key)
                open_values.append(
                    iter(value.items() if isinstance(value, dict) else enumerate(value))
                )
                break
        else:
            open_values.pop()
            if keys:
                keys.pop()
    return None


def _path(keys: list[Key]) -> str:
    names = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys if key is not None)
    return "".join(names)[: MOST_PATH + 1].removeprefix(".")[:MOST_PATH]
