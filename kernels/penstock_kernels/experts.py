"""Experts: gated MLPs side by side, of which each row takes a few.

Shazeer et al., 2017, arXiv:1701.06538; as Mixtral has them, arXiv:2401.04088.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.ops import Act
from penstock_kernels.stacked import Stacked


@dataclass(frozen=True, slots=True, eq=False)
class Experts:
    """MLPs of one shape, and how rows choose among them."""

    up: Stacked  # [2 * inner, hidden] each, the gate's rows before those of up
    down: Stacked  # [hidden, inner] each
    act: Act
    top: int  # experts that a row takes
    normalised: bool  # the weights of those sum to 1

    @property
    def count(self) -> int:
        return self.up.count

    @property
    def inner(self) -> int:
        return self.down.k

    def tensors(self) -> Iterator[Tensor]:
        yield from self.up.tensors()
        yield from self.down.tensors()


def choose(logits: Tensor, experts: Experts) -> tuple[Tensor, Tensor]:
    """Which experts each row takes, and with what weights.

    logits: [n, experts]. Returns weights [n, top] float32 and experts [n, top] int64, the likeliest
    first. Nothing of it waits for the device.
    """
    probability = torch.softmax(logits, -1, dtype=torch.float32)
    weight, chosen = probability.topk(experts.top, -1)
    if experts.normalised:
        weight = weight / weight.sum(-1, keepdim=True)
    return weight, chosen
