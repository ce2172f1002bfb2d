"""torchao, as transformers writes it: the parts of a weight are tensors beside one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_quantization.source import Source

DATA, SCALE = "._weight_qdata", "._weight_scale"
_AS_FP8 = {".weight": DATA, ".weight_scale": SCALE}


@dataclass(frozen=True, slots=True)
class Fp8Names:
    """A source whose weights in FP8 have the names that other formats give them."""

    source: Source

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self.source.shape(self._own(name))

    def is_there(self, name: str) -> bool | None:
        return self.source.is_there(self._own(name))

    def stored(self, name: str) -> torch.dtype | None:
        return self.source.stored(self._own(name))

    def is_fp8(self, name: str) -> bool | None:
        return self.source.is_fp8(self._own(name))

    def read(
        self, into: Tensor, name: str, shape: tuple[int, ...], dim: int = 0, start: int = 0
    ) -> None:
        self.source.read(into, self._own(name), shape, dim, start)

    def _own(self, name: str) -> str:
        for ending, own in _AS_FP8.items():
            if name.endswith(ending):
                base = name.removesuffix(ending)
                return base + own if self.source.is_there(base + DATA) else name
        return name
