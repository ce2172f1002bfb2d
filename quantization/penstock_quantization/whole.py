"""How matrices of whole numbers are stored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Whole:
    """Numbers of so many bits with a scale for each group of a row."""

    bits: int = 8
    group: int | None = None  # inputs; None: all of a row
    offset: int = 0  # of stored zeros: what is missing to the zero itself
    symmetric: bool = False
