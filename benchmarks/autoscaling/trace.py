"""Arrivals: from a file, or drawn."""

from __future__ import annotations

import csv
import json
import math
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# What columns of known traces are called, that of Azure's LLM inference traces among them.
TIMES = ("timestamp", "time", "arrival")
PROMPTS = ("contexttokens", "prompt_tokens", "input_length")
OUTPUTS = ("generatedtokens", "output_tokens", "output_length")
GROUPS = ("group", "session", "conversation")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request. Those of a group have their prefix in common."""

    time: float  # seconds from the first one
    prompt: int  # tokens
    output: int
    group: int
    shared: int  # tokens of the prompt that all of the group begin with


def read(path: Path, shared: float = 0.0) -> list[Arrival]:
    """JSON lines, or CSV with a head. Raises ValueError that names the line.

    shared: of a prompt, that its group has in common; without a column of groups each request is
    its own.
    """
    rows = _lines(path)
    found = []
    for number, row in enumerate(rows, start=1):
        fields = {name.lower().replace(" ", "_"): value for name, value in row.items()}
        try:
            time = _seconds(_first(fields, TIMES))
            prompt, output = int(_first(fields, PROMPTS)), int(_first(fields, OUTPUTS))
        except ValueError as error:
            raise ValueError(f"{path}: record {number}: {error}") from None
        group = next((fields[name] for name in GROUPS if fields.get(name)), number)
        found.append(
            Arrival(time, max(prompt, 1), max(output, 1), number_of(group), int(shared * prompt))
        )
    if not found:
        raise ValueError(f"{path} holds no arrivals")
    found.sort(key=lambda arrival: arrival.time)
    begin = found[0].time
    return [Arrival(a.time - begin, a.prompt, a.output, a.group, a.shared) for a in found]


def number_of(group: object) -> int:
    """The same in each run, as Python's hashes of words are not."""
    return zlib.crc32(str(group).encode())


def _lines(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        if path.suffix in (".json", ".jsonl"):
            for line in filter(str.strip, file):
                yield {name: str(value) for name, value in json.loads(line).items()}
        else:
            yield from csv.DictReader(file)


def _first(fields: dict[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        if fields.get(name):
            return fields[name]
    raise ValueError(f"it has none of {', '.join(names)}")


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text[:26]).timestamp()


def drawn(
    seconds: float,
    low: float,
    high: float,
    period: float,
    *,
    burst: float = 1.0,
    seed: int = 1,
    groups: int = 64,
    shared: int = 512,
    prompt: float = 1024.0,
    output: float = 256.0,
) -> list[Arrival]:
    """A Poisson process whose rate goes from low to high and back in each period (requests a
    second), and is `burst` times as high in the middle tenth of the whole."""
    chance = random.Random(seed)
    most = high * burst
    found, now = [], 0.0
    while (now := now + chance.expovariate(most)) < seconds:
        rate = low + (high - low) * (1 - math.cos(2 * math.pi * now / period)) / 2
        if 0.45 <= now / seconds < 0.55:
            rate *= burst
        if chance.random() * most < rate:
            own = max(int(chance.lognormvariate(math.log(prompt - shared + 1), 0.6)), 1)
            length = max(int(chance.lognormvariate(math.log(output), 0.6)), 1)
            group = chance.randrange(groups)
            found.append(Arrival(now, shared + own, length, group, shared))
    return found
