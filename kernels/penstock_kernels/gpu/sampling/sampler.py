"""What a backend does with logits, by kernels of our own."""

from __future__ import annotations

from torch import Tensor

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.gpu.sampling.draw import draw
from penstock_kernels.gpu.sampling.penalties import penalise
from penstock_kernels.penalties import Penalties


class TritonSampler:
    """Reference: `penstock_kernels.reference.device.TorchSampler`."""

    def __init__(self, dependent: bool = False) -> None:
        """dependent: launch kernels as `dependent` says."""
        self._dependent = dependent

    def draw(self, logits: Tensor, draws: SamplingBatch) -> Tensor:
        return draw(logits, draws, self._dependent)

    def penalise(self, logits: Tensor, penalties: Penalties) -> Tensor:
        return penalise(logits, penalties)
