"""Experts: the two grouped products of a layer, with what sorts pairs before them and adds up
behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import Launch, Line, dependent, randn
from torch import Tensor

from penstock_kernels import int4
from penstock_kernels.experts import Experts
from penstock_kernels.gpu.products.experts import mix
from penstock_kernels.lut import table_of
from penstock_kernels.ops import Act
from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Layout, Weight

ROWS = (1, 8, 64, 512, 4096)


@dataclass(frozen=True, slots=True)
class Mixture:
    """A layer of experts."""

    hidden: int
    inner: int
    count: int
    top: int
    formats: tuple[str, ...] = ("bfloat16", "FP8", "INT4", "MXFP4")


MIXTURES = {
    "Qwen3-30B-A3B": Mixture(2048, 768, 128, 8),
    "Mixtral-8x7B": Mixture(4096, 14336, 8, 2),
    "gpt-oss-20b": Mixture(2880, 2880, 32, 4, ("bfloat16", "MXFP4")),  # no multiple of 128
}


def _dense(count: int, n: int, k: int, device: torch.device) -> Stacked:
    return Stacked.dense(randn(device, count, n, k).mul_(k**-0.5))


def _bytes(device: torch.device, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


def _fp8(count: int, n: int, k: int, device: torch.device) -> Stacked:
    """In blocks of 128 x 128."""
    data = (_bytes(device, count, n, k) & 0xBF).view(torch.float8_e4m3fn)  # none is NaN
    scale = torch.full((count, n // 128, k // 128), k**-0.5, device=device)
    return Stacked(
        Weight(
            data, None, Layout.FP8_BLOCKS, scale, scale_rows=128, scale_columns=128, shape=(n, k)
        )
    )


def _int4(count: int, n: int, k: int, device: torch.device) -> Stacked:
    """In groups of 128, symmetric."""
    tall, wide = n // int4.ROWS, k // int4.COLUMNS
    scale = torch.full((count, tall, wide, 64), 0.2 * k**-0.5, device=device).half()
    data = _bytes(device, count, tall, wide, int4.BYTES)
    return Stacked(Weight(data, None, Layout.INT4, scale, scale_columns=128, shape=(n, k)))


def _mxfp4(count: int, n: int, k: int, device: torch.device) -> Stacked:
    power = 127 - round(math.log2(2.5 * k**0.5))
    scale = torch.full((count, k // 32, n), power, dtype=torch.uint8, device=device)
    return Stacked(
        Weight(
            _bytes(device, count, n, k // 2), None, Layout.LUT, scale, scale_columns=32,
            table=table_of("e2m1", device), code="e2m1", shape=(n, k),
        )
    )  # fmt: skip


# How to make random matrices, and bytes of one of their numbers.
FORMATS: dict[str, tuple[Callable[[int, int, int, torch.device], Stacked], float]] = {
    "bfloat16": (_dense, 2),
    "FP8": (_fp8, 1),
    "INT4": (_int4, 0.5 + 2 / 128),
    "MXFP4": (_mxfp4, 0.5 + 1 / 32),
}
KERNELS = (
    "expert_groups._choose_kernel", "expert_groups._group_kernel", "grouped._grouped_kernel",
    "experts._sum_kernel",
)  # fmt: skip
OF_ONE_ROW = (KERNELS[0], "expert_vectors._single_kernel", KERNELS[-1])


def lines(shape: Shape) -> Iterator[Line]:
    """Of each mixture, whatever the model is, in each format, one for each number of rows."""
    del shape
    for name, mixture in MIXTURES.items():
        for form in mixture.formats:
            for rows in ROWS:
                yield _line(name, mixture, form, rows)


def touched(mixture: Mixture, rows: int) -> float:
    """Experts that some row takes, where rows choose at random."""
    return mixture.count * (1 - (1 - mixture.top / mixture.count) ** rows)


def moved(mixture: Mixture, form: str, rows: int) -> int:
    """Bytes: matrices of experts that are taken, and rows in and out."""
    numbers = 3 * mixture.inner * mixture.hidden
    return int(touched(mixture, rows) * numbers * FORMATS[form][1]) + 4 * rows * mixture.hidden


def experts_of(mixture: Mixture, form: str, device: torch.device) -> Experts:
    make = FORMATS[form][0]
    return Experts(
        make(mixture.count, 2 * mixture.inner, mixture.hidden, device),
        make(mixture.count, mixture.hidden, mixture.inner, device),
        Act.SILU, mixture.top, True,
    )  # fmt: skip


def _line(name: str, mixture: Mixture, form: str, rows: int) -> Line:
    return Line(
        name=f"experts, {form}", what=f"{rows} rows, {name}",
        kernels=OF_ONE_ROW if rows == 1 else KERNELS,
        moved=moved(mixture, form, rows),
        flops=rows * mixture.top * 6 * mixture.inner * mixture.hidden,
        prepare=partial(_prepare, mixture, form, rows),
    )  # fmt: skip


def _prepare(mixture: Mixture, form: str, rows: int, device: torch.device, copies: int) -> Launch:
    """Rows of each copy choose other experts, so that few of those stand in L2."""
    experts = experts_of(mixture, form, device)
    inputs = [
        (randn(device, rows, mixture.hidden), randn(device, rows, mixture.count))
        for _ in range(copies)
    ]

    def launch(turn: int) -> None:
        x, logits = inputs[turn % copies]
        mix(x, logits, experts, **dependent(device))

    return launch
