"""A table of sixteen numbers as whole ones, and how they are looked up in registers.

`prmt` chooses four bytes of eight by four nibbles. Codes below 8 find theirs in one half
of the table, where codes above give 0, and those above, as complements, in the other. All numbers
of a half have the same sign, so the row or its negative is what it multiplies.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.lut import TABLES

LARGEST = 127


@dataclass(frozen=True, slots=True)
class Digits:
    """A table as whole numbers of 7 bits.

    halves: magnitudes of those that are not below 0 and of those that are, in the order in which
    codes find them; first: whether the former are those of the codes below 8; unit: of a number of
    the former; ratio: that of the latter to it.
    """

    halves: tuple[tuple[int, ...], tuple[int, ...]]
    first: bool
    unit: float
    ratio: float


@functools.cache
def digits_of(code: str) -> Digits:
    """A half's unit is that with which its numbers, as whole ones, are off by least.

    The half of the codes from 8 on is reversed, as the complements of its codes find it.
    """
    numbers = torch.tensor(TABLES[code], dtype=torch.float64).view(2, 8)
    first = bool((numbers[0] >= 0).all() and (numbers[1] <= 0).all())
    assert first or (numbers[0] <= 0).all() and (numbers[1] >= 0).all(), "a half has one sign"
    halves, units = [], []
    for numbers_of, reverse in zip(numbers.abs(), (False, True), strict=True):
        tried = torch.linspace(LARGEST / 2, LARGEST + 0.499, 100_000, dtype=torch.float64)[:, None]
        tried /= numbers_of.max()
        off = ((numbers_of * tried).round() / tried - numbers_of).square().sum(1)
        best = tried[off.argmin()]
        whole = (numbers_of * best).round().long()
        halves.append(tuple((whole.flip(0) if reverse else whole).tolist()))
        units.append(1 / float(best))
    order = (0, 1) if first else (1, 0)
    plus, minus = order
    return Digits((halves[plus], halves[minus]), first, units[plus], units[minus] / units[plus])


def _words(digits: Digits) -> list[tuple[int, int]]:
    """Of each half four bytes, and the others."""

    def word(numbers: tuple[int, ...]) -> int:
        return sum(number << 8 * i for i, number in enumerate(numbers))

    return [(word(half[:4]), word(half[4:])) for half in digits.halves]


@functools.cache
def words_of(digits: Digits, device: torch.device) -> Tensor:
    """What a kernel reads of a table, [3, 8] int32: -1 and the words that `lookup` takes
    from registers, each eight times. The compiler must know neither them nor that threads have the
    same: it would copy them for each instruction."""
    words = torch.tensor([-1, *(low for low, _ in _words(digits))], dtype=torch.int32)
    return words[:, None].expand(-1, 8).contiguous().to(device)


@functools.cache
def lookup(digits: Digits) -> str:
    """PTX of a table. Results, two of each half: those of the first four codes, and of the
    others. Arguments: eight codes, and those of `words_of`, of which each has four registers."""
    words = _words(digits)
    codes = 2 * len(words)
    lines = [
        "{",
        ".reg .b32 codes0, codes1, later0, later1, ones;",
        f"mov.b32 codes0, ${codes};",
        f"mov.b32 ones, ${codes + 1};",
        "shr.u32 later0, codes0, 16;",
        "mad.lo.u32 codes1, codes0, ones, ones;",  # the complement, beside logical instructions
        "mad.lo.u32 later1, later0, ones, ones;",
    ]
    for i, (_, last) in enumerate(words):
        half = int((i == 0) is not digits.first)
        for j, which in enumerate(("codes", "later")):
            table = f"${codes + 5 + 4 * i}, {last:#010x}"
            lines.append(f"prmt.b32 ${2 * i + j}, {table}, {which}{half};")
    return "\n".join([*lines, "}"])
