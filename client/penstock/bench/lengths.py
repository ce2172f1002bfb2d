"""How long prompts and answers are, as a notation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

LONGEST = 10_000_000  # tokens


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
        # comparisons with NaN are false
        wrong = cls.KINDS.get(kind) != len(values) or not all(0 < v <= LONGEST for v in values)
        if wrong or (kind == "uniform" and values[0] > values[1]):
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
            return [max(1, int(self.values[0]))] * count
        if self.kind == "uniform":
            low, high = self.values
            return [max(1, int(n)) for n in rng.integers(int(low), int(high) + 1, size=count)]
        median, sigma, longest = self.values
        drawn = rng.lognormal(math.log(median), sigma, size=count)
        return [max(1, int(min(n, longest))) for n in drawn]
