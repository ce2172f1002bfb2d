"""Runs the inline assembly of kernels on the CPU: as many of PTX's instructions as they use.

[low, high] = run(asm, [words], 2)     words: int64 tensors of unsigned 32-bit numbers

A line is an instruction; `$0` and so on are the results, then the arguments. What is not known
raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WORD = 0xFFFFFFFF


def prmt(a: Tensor, b: Tensor, selector: Tensor) -> Tensor:
    """Four bytes of eight, each by three bits of a nibble; its fourth bit repeats the sign."""
    eight = [part >> 8 * byte & 255 for part in (a, b) for byte in range(4)]
    stacked = torch.stack(torch.broadcast_tensors(*eight, selector)[:8])
    result = torch.zeros_like(stacked[0])
    for byte in range(4):
        nibble = (selector >> 4 * byte).expand(result.shape)
        found = stacked.gather(0, (nibble & 7)[None])[0]
        found = torch.where(nibble & 8 > 0, (found >> 7) * 255, found)
        result |= found << 8 * byte
    return result


def lop3(a: Tensor, b: Tensor, c: Tensor, table: Tensor) -> Tensor:
    result = torch.zeros_like(a + b + c)
    for row in range(8):
        if int(table) >> row & 1:
            bits = [x if row >> place & 1 else ~x for x, place in ((a, 2), (b, 1), (c, 0))]
            result |= bits[0] & bits[1] & bits[2]
    return result & WORD


def floating(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Of words that are numbers in float32."""

    def apply(a: Tensor, b: Tensor) -> Tensor:
        x, y = (word.to(torch.uint32).view(torch.float32) for word in (a, b))
        return function(x, y).view(torch.uint32).to(torch.int64)

    return apply


INSTRUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mov.b32": lambda a: a,
    "and.b32": torch.bitwise_and,
    "or.b32": torch.bitwise_or,
    "xor.b32": torch.bitwise_xor,
    "shl.b32": lambda a, b: a << b & WORD,
    "shr.b32": torch.bitwise_right_shift,
    "shr.u32": torch.bitwise_right_shift,
    "add.u32": lambda a, b: a + b & WORD,
    "sub.u32": lambda a, b: a - b & WORD,
    "mul.hi.u32": lambda a, b: a * b >> 32,
    "mad.hi.u32": lambda a, b, c: (a * b >> 32) + c & WORD,
    "mad.lo.u32": lambda a, b, c: a * b + c & WORD,
    "add.rn.f32": floating(torch.add),
    "sub.rn.f32": floating(torch.sub),
    "lop3.b32": lop3,
    "prmt.b32": prmt,
}


def run(asm: str, arguments: Sequence[Tensor], results: int) -> list[Tensor]:
    """The words that an assembly makes of words."""
    values = {f"${results + i}": argument for i, argument in enumerate(arguments)}

    def value(name: str) -> Tensor:
        if name in values:
            return values[name]
        if name.startswith("0f"):
            return torch.tensor(int(name[2:], 16))
        return torch.tensor(int(name, 0))

    for line in re.split(r"[;{}\n]+", asm):
        if not line.strip() or line.split()[0] == ".reg":
            continue
        operation, rest = line.split(maxsplit=1)
        target, *sources = (name.strip() for name in rest.split(","))
        values[target] = INSTRUCTIONS[operation](*map(value, sources))
    return [values[f"${i}"] for i in range(results)]
