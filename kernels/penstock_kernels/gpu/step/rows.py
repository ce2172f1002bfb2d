"""Operations over rows that need nothing of their sequences: norms, products and what follows them.

Where the product table has a row that computes a product together with what follows it, that is one
launch, else two. Results are the same, but for one rounding. A norm is no launch where the product
behind it normalises its rows: they stay as they are until then (`Activation.norm`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.gpu.products.experts import mix
from penstock_kernels.gpu.products.problem import Epilogue
from penstock_kernels.gpu.products.quantise import Room, quantise_rows, room_for
from penstock_kernels.gpu.products.table import FASTEST, ProductTable
from penstock_kernels.gpu.step.activation import activate, gate
from penstock_kernels.gpu.step.norm import add_norm, normalise
from penstock_kernels.ops import Act, Activation, Norm, NormKind
from penstock_kernels.weight import Weight


class TritonRows:
    """See `ops.Step`. dependent: launch kernels as `dependent` says; it changes no result."""

    def __init__(self, dependent: bool = False, products: ProductTable = FASTEST) -> None:
        self._dependent, self._products = dependent, products

    def norm(self, x: Tensor, norm: Norm | None, to: Weight | None = None) -> Activation:
        if norm is None:
            return self._for(to, x)
        by_rms = norm.kind is not NormKind.LAYER
        if to is not None and by_rms and self._products.normalises(x, to):
            return Activation(x, norm=norm)
        room = self._room(to, x)
        return _made(normalise(x, norm, self._dependent, room=room), room)

    def add_norm(
        self, x: Tensor, residual: Tensor, norm: Norm | None, to: Weight | None = None
    ) -> Activation:
        if norm is None:
            return self._for(to, residual.add_(x.sum(0) if x.dim() == 3 else x))
        room = self._room(to, residual)
        return _made(add_norm(x, residual, norm, self._dependent, room=room), room)

    def linear(self, x: Activation, weight: Weight) -> Tensor:
        launch = self._products.find(Epilogue.NONE, x, weight)
        if launch is None:
            x = self._normalised(x)
            launch = self._products.find(Epilogue.NONE, x, weight)
        assert launch is not None, "every layout has a row for every product"
        out: Tensor = launch(x, weight, self._dependent)
        return out

    def linear_add_norm(
        self,
        x: Activation,
        weight: Weight,
        residual: Tensor,
        norm: Norm | None,
        to: Weight | None = None,
    ) -> Activation:
        if launch := self._products.find(Epilogue.RESIDUAL, x, weight):
            launch(x, weight, self._dependent, residual)
            return self.norm(residual, norm, to)
        if launch := self._products.find(Epilogue.PARTIAL, x, weight):
            return self.add_norm(launch(x, weight, self._dependent), residual, norm, to)
        return self.add_norm(self.linear(x, weight), residual, norm, to)

    def gated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        if act is Act.SILU and (launch := self._products.find(Epilogue.GATED, x, weight)):
            return self._for(to, launch(x, weight, self._dependent))
        room = self._room(to, x.x)
        y = gate(self.linear(x, weight), act, self._dependent, room=room)
        return _made(y, room)

    def activated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        room = self._room(to, x.x)
        y = activate(self.linear(x, weight), act, self._dependent, room=room)
        return _made(y, room)

    def experts(self, x: Activation, router: Weight, experts: Experts) -> Tensor:
        x = self._normalised(x)
        return mix(x.x, self.linear(x, router), experts, self._dependent)

    def each(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return function(x)

    def _normalised(self, x: Activation) -> Activation:
        """For readers that do not do so themselves."""
        return x if x.norm is None else Activation(normalise(x.x, x.norm, self._dependent))

    def _room(self, to: Weight | None, x: Tensor) -> Room | None:
        """Where what is made of the rows x goes quantised, where the weight that reads it wants it
        so."""
        if to is None or not self._products.quantises(len(x), to):
            return None
        return room_for(x, to.k, to.layout)

    def _for(self, to: Weight | None, x: Tensor) -> Activation:
        """Rows as the weight that reads them wants them."""
        if to is None or not self._products.quantises(len(x), to):
            return Activation(x)
        return Activation(x, *quantise_rows(x, self._dependent, to.layout))


def _made(x: Tensor, room: Room | None) -> Activation:
    return Activation(x) if room is None else Activation(x, room.rows, room.scale)
