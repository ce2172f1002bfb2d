"""The cases of the load generator as data, and the prompts drawn for them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens, written N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA:MAX."""

    kind: str
    values: tuple[float, ...]

    KINDS = {"fixed": 1, "uniform": 2, "lognormal": 3}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the notation above. Raises ValueError for anything else."""
        kind, *numbers = text.split(":") if ":" in text else ("fixed", text)
        try:
            values = tuple(float(number) for number in numbers)
        except ValueError:
            values = ()
        if cls.KINDS.get(kind) != len(values) or min(values) <= 0:
            raise ValueError(
                f"lengths {text!r}: expected N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA:MAX"
            )
        return cls(kind, values)

    def __str__(self) -> str:
        numbers = [f"{value:g}" for value in self.values]
        return numbers[0] if self.kind == "fixed" else ":".join([self.kind, *numbers])

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """`count` lengths of at least one token."""
        if self.kind == "fixed":
            return [int(self.values[0])] * count
        if self.kind == "uniform":
            low, high = self.values
            return [int(n) for n in rng.integers(int(low), int(high) + 1, size=count)]
        median, sigma, longest = self.values
        drawn = rng.lognormal(math.log(median), sigma, size=count)
        return [max(1, int(min(n, longest))) for n in drawn]


@dataclass(frozen=True, slots=True)
class Case:
    """A closed loop of `streams`, or with a rate an open one, over `requests` requests."""

    name: str
    streams: int
    requests: int
    prompt: Lengths
    output: Lengths
    shared_prefix: int = 0  # leading tokens that the prompts of a group share
    prefix_groups: int = 1
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    schema: str = ""  # JSON schema that the answers are held to
    compact: bool = False  # without free white space in them


def fixed(
    name: str, streams: int, requests: int, prompt: int, output: int, prefix: int = 0
) -> Case:
    """A case with one length of prompt and one of output."""
    lengths = [Lengths("fixed", (float(tokens),)) for tokens in (prompt, output)]
    return Case(name, streams, requests, lengths[0], lengths[1], prefix)


def sampled(name: str, case: Case) -> Case:
    """The same as most clients ask: by chance, within a nucleus."""
    return replace(case, name=name, temperature=0.7, top_p=0.95)


CASES = {
    case.name: case
    for case in (
        fixed("single", 1, 4, 128, 256),
        fixed("c8", 8, 16, 512, 128),
        fixed("c32", 32, 96, 512, 128),
        fixed("c64", 64, 192, 512, 128),
        fixed("c128", 128, 384, 512, 128),
        fixed("c256", 256, 768, 512, 128),
        fixed("agent1000", 64, 256, 1024, 64, prefix=1000),
        fixed("fewshot2000", 32, 128, 2048, 32, prefix=2000),
        fixed("long", 16, 32, 7000, 64),
        sampled("c8-sampled", fixed("c8", 8, 16, 512, 128)),
        sampled("c64-sampled", fixed("c64", 64, 192, 512, 128)),
    )
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: token ids, and how many tokens to generate."""

    tokens: list[int]
    output: int


def draw_prompts(case: Case, seed: int, token_range: tuple[int, int]) -> list[Prompt]:
    """The case's requests, uniform over token ids low .. high-1; the same for the same seed.

    The case's name goes into the seed, so that one case never finds another's prompts cached.
    """
    rng = np.random.default_rng([seed, *case.name.encode()])
    low, high = token_range
    prefixes = rng.integers(low, high, size=(case.prefix_groups, case.shared_prefix)).tolist()
    lengths = case.prompt.draw(rng, case.requests)
    outputs = case.output.draw(rng, case.requests)
    prompts = []
    for index, (length, output) in enumerate(zip(lengths, outputs, strict=True)):
        own = max(length - case.shared_prefix, 1)
        tokens = prefixes[index % case.prefix_groups] + rng.integers(low, high, size=own).tolist()
        prompts.append(Prompt(tokens, output))
    return prompts
