"""The CPU's path where results must not depend on what else is computed: `--deterministic`.

Products, attention and functions of elements are those of `invariant_products`,
`invariant_attention` and `invariant_elements`. The rest is `reference.device`'s: torch computes
norms and softmax row by row, and sums and products of elements are exact to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.ops import Act, Activation, AttentionSpec, StepBatch
from penstock_kernels.reference.activation import activate, gate
from penstock_kernels.reference.device import TorchDevice, TorchStep, dense
from penstock_kernels.reference.experts import mix
from penstock_kernels.reference.invariant_attention import invariant_attention
from penstock_kernels.reference.invariant_elements import each
from penstock_kernels.reference.invariant_products import InvariantProducts
from penstock_kernels.weight import Weight


class InvariantTorchDevice(TorchDevice):
    """`TorchDevice` whose rows do not depend on one another."""

    def __init__(self, ropes: tuple[Tensor, ...], block_size: int) -> None:
        super().__init__(ropes, block_size)
        self._products = InvariantProducts()

    def step(self, batch: StepBatch) -> InvariantTorchStep:
        return InvariantTorchStep(batch, self._ropes, self._block_size, self._products)


class InvariantTorchStep(TorchStep):
    """See `ops.Step`."""

    def __init__(
        self,
        batch: StepBatch,
        ropes: tuple[Tensor, ...],
        block: int,
        products: InvariantProducts,
    ) -> None:
        super().__init__(batch, ropes, block)
        self._products = products

    def linear(self, x: Activation, weight: Weight) -> Tensor:
        return self._products(x.x, dense(weight, x.x.dtype), weight.bias)

    def gated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        return Activation(self._gate(self.linear(x, weight), act))

    def activated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        return Activation(self._activate(self.linear(x, weight), act))

    def experts(self, x: Activation, router: Weight, experts: Experts) -> Tensor:
        return mix(x.x, self.linear(x, router), experts, self._products, self._gate)

    def attend(
        self,
        query: Tensor,
        spec: AttentionSpec,
        cache: Tensor,
        to: Weight | None = None,
        sinks: Tensor | None = None,
    ) -> Activation:
        return Activation(
            invariant_attention(query, cache, self._pages, spec, self._products, sinks)
        )

    def each(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return each(function, x)

    def _activate(self, x: Tensor, act: Act) -> Tensor:
        return each(lambda piece: activate(piece, act), x)

    def _gate(self, gate_up: Tensor, act: Act) -> Tensor:
        return gate(gate_up, act, self._activate)
