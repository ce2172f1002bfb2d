"""Where readers find tensors."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Source(Protocol):
    """The tensors of a checkpoint, or what stands for them."""

    def shape(self, name: str) -> tuple[int, ...] | None:
        """None where there is no such tensor, or where any shape will do."""

    def is_there(self, name: str) -> bool | None:
        """Whether there is such a tensor; None where there are all."""

    def stored(self, name: str) -> torch.dtype | None:
        """Of a tensor of real numbers; None where there is none such, or where any type will do."""

    def is_fp8(self, name: str) -> bool | None:
        """Whether a tensor is e4m3; None where any type will do."""

    def read(
        self, into: Tensor, name: str, shape: tuple[int, ...], dim: int = 0, start: int = 0
    ) -> None:
        """Fill `into` with `name`, from `start` on along `dim`; rows beyond its end become zero.

        shape is that of the whole tensor. FP8 and integers are read as what they are, all else is
        rounded to the type of `into`. Raises ValueError that names the tensor.
        """
