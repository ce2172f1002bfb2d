"""Functions of elements, on a CPU, whose results do not depend on what stands beside an element.

Vector instructions and what is left over behind the last whole vector may round differently, and
where vectors begin depends on how many elements there are. In pieces of one size, which vectors
divide and no two threads share, every element is in a vector.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 2048  # elements: also the fewest for which torch would take a second thread


def each(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x) of a function of single elements. Returns a new tensor of x's shape."""
    flat = x.reshape(-1)
    pieces = F.pad(flat, (0, -len(flat) % PIECE)).clone().view(-1, PIECE).unbind(0)
    return torch.cat([function(piece) for piece in pieces])[: len(flat)].view(x.shape)
