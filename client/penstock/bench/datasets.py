"""Prompts from files: conversations in ShareGPT's format, and questions for a JSON schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from penstock.bench.lengths import Lengths
from penstock.bench.prompts import Prompt

LARGEST_FILE = 4 << 30  # bytes
CHARACTERS_A_TOKEN = 4.0  # of English, where there is no tokenizer to count with
SHORTEST = 4  # tokens of a prompt or an answer that is worth sending
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 4},
        "address": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 40},
                "zip": {"type": "string", "pattern": "[0-9]{5}"},
            },
            "required": ["city", "zip"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
}


def sharegpt(
    path: Path,
    count: int,
    seed: int,
    *,
    tokens: Callable[[str], int] | None = None,
    output: Lengths | None = None,
    longest: int = 1_000_000,
) -> list[Prompt]:
    """`count` conversations of a file, in an order that the seed gives, over again if need be.

    The first turn is the prompt; so many tokens are asked for as the answer in the file has, or as
    `output` draws. tokens: counts those of a text; None: a token for four characters. Prompts that
    have fewer than 4 tokens or, with the answer, more than `longest` are left out.

    The file is a JSON list or a line each: {"conversations": [{"from", "value"}, …]},
    {"messages": [{"role", "content"}, …]} or {"prompt", "output"}.

    Raises ValueError where nothing in it is a conversation; OSError.
    """
    counted = tokens or (lambda text: round(len(text) / CHARACTERS_A_TOKEN))
    entries = list(_entries(path))
    rng = np.random.default_rng([seed, *b"sharegpt"])
    drawn = output.draw(rng, count) if output else []
    found: list[Prompt] = []
    for index in rng.permutation(len(entries)):
        if len(found) == count:
            break
        pair = _turns(entries[index])
        if pair is None:
            continue
        size, answer = counted(pair[0]), counted(pair[1])
        wanted = drawn[len(found)] if drawn else answer
        if size >= SHORTEST and wanted >= (1 if drawn else SHORTEST) and size + wanted <= longest:
            found.append(Prompt(pair[0], wanted))
    if not found:
        raise ValueError(f"{path} holds no conversation of a length that can be used")
    return [found[index % len(found)] for index in range(count)]


def _entries(path: Path) -> Iterator[Any]:
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"{path} has {size:,} bytes; at most {LARGEST_FILE:,} are read")
    data = path.read_bytes()
    try:
        if data.lstrip()[:1] == b"[":
            yield from orjson.loads(data)
        else:
            for line in data.splitlines():
                if line.strip():
                    yield orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path} is neither JSON nor JSON lines: {error}") from None


def _turns(entry: object) -> tuple[str, str] | None:
    """The first question of an entry, and its answer, empty where there is none."""
    if not isinstance(entry, dict):
        return None
    turns: list[object] = [entry.get("prompt"), entry.get("output", "")]
    for name, key in (("conversations", "value"), ("messages", "content")):
        listed = entry.get(name)
        if isinstance(listed, list) and listed:
            said = [turn.get(key) for turn in listed if isinstance(turn, dict)]
            turns = [*said, ""][:2]
    question, answer = turns
    if not isinstance(question, str) or not isinstance(answer, str) or not question:
        return None
    return question, answer


def json_schema(words: str, output: int, schema: dict[str, Any]) -> Prompt:
    """Some words, and behind them the wish for an object that the schema admits."""
    return Prompt(f"{words}\nA person, as JSON:", output, schema)
