"""What a backend does with logits, by kernels of our own."""

from __future__ import annotations

from torch import Tensor

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.gpu.sampling.draw import draw
from penstock_kernels.gpu.sampling.penalties import penalise
from penstock_kernels.penalties import Penalties


class TritonSampler:
    """Reference: `penstock_kernels.reference.device.TorchSampler`."""

    draws_alone = False  # kernels take each row by itself

    def __init__(self, dependent: bool = False, rows_alone: bool = False) -> None:
        """dependent: launch kernels as `dependent` says; rows_alone: see `ops.Sampler`."""
        self._dependent, self.rows_alone = dependent, rows_alone

    def draw(self, logits: Tensor, draws: SamplingBatch) -> Tensor:
        return draw(logits, draws, self._dependent)

    def penalise(self, logits: Tensor, penalties: Penalties) -> Tensor:
        return penalise(logits, penalties)
