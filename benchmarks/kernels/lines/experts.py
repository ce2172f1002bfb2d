"""Experts: the two grouped products of a layer, with the sorting of pairs before them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import Launch, Line, randn

from penstock_kernels.experts import Experts
from penstock_kernels.gpu.products.experts import mix
from penstock_kernels.ops import Act
from penstock_kernels.stacked import Stacked

# Of Qwen3-30B-A3B, whatever the model is: hidden size, experts, their inner size, those of a row.
HIDDEN, COUNT, INNER, TOP = 2048, 128, 768, 8
ROWS = (1, 64, 2048)


def lines(shape: Shape) -> Iterator[Line]:
    """One for each number of rows."""
    del shape
    for rows in ROWS:
        touched = COUNT * (1 - (1 - TOP / COUNT) ** rows)  # experts, where rows choose at random
        yield Line(
            name="experts", what=f"{rows} rows, {TOP} of {COUNT}",
            kernels=("experts._grouped_kernel",),
            moved=int(touched * 3 * INNER * HIDDEN) * 2 + 4 * rows * HIDDEN,
            flops=rows * TOP * 6 * INNER * HIDDEN, prepare=partial(_experts, rows),
        )  # fmt: skip


def _experts(rows: int, device: torch.device, copies: int) -> Launch:
    experts = Experts(
        Stacked.dense(randn(device, COUNT, 2 * INNER, HIDDEN)),
        Stacked.dense(randn(device, COUNT, HIDDEN, INNER)),
        Act.SILU, TOP, True,
    )  # fmt: skip
    inputs = [(randn(device, rows, HIDDEN), randn(device, rows, COUNT)) for _ in range(copies)]

    def launch(turn: int) -> None:
        x, logits = inputs[turn % copies]
        mix(x, logits, experts)

    return launch
