"""A line of `benchmarks.kernels.bandwidth`: what is launched, and what it must move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import supports_dependent_launch

COLD = 150e6  # bytes, three times the L2 of an H100: what is read again after so many is not there
MOST_COPIES = 128
EPS = 1e-5

Launch = Callable[[int], object]  # told its number, by which it takes its copy of the inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One launch, or one with the merge or second pass that always follows it."""

    name: str
    what: str  # its sizes, as printed
    kernels: tuple[str, ...]  # that it launches, as module.function of penstock_kernels.gpu
    moved: int  # bytes: inputs read once and outputs written once
    prepare: Callable[[torch.device, int], Launch]  # from a device and the number of copies
    flops: int = 0  # where products bound it
    small: bool = False  # in a step it stands in L2: its time is one of latency

    @property
    def copies(self) -> int:
        """Of inputs and outputs, which launches take in turn, so that none comes from L2."""
        return 1 if self.small else min(MOST_COPIES, max(2, -int(-COLD // self.moved)))


def randn(device: torch.device, *shape: int) -> Tensor:
    """In bfloat16."""
    return torch.randn(shape, device=device, dtype=torch.bfloat16)


def dependent(device: torch.device) -> dict[str, Any]:
    """Launched as a server does."""
    return {"dependent": supports_dependent_launch(device)}
