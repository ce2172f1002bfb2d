"""Which kernel computes a product: the first row of the table that has a launch for it.

Every layout has a row for every problem with the epilogue NONE. Each other epilogue has a second
launch that comes to the same (`step`), so a new layout works everywhere with its first row, and
rows that do more at once are added where a measurement says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from penstock_kernels.gpu.products import dense, fp8, fp8_blocks, int4, int8, lut
from penstock_kernels.gpu.products.problem import Epilogue, Problem, Product
from penstock_kernels.ops import Activation
from penstock_kernels.weight import Weight

PRODUCTS: tuple[Product, ...] = (
    *dense.PRODUCTS,
    *fp8.PRODUCTS,
    *fp8_blocks.PRODUCTS,
    *lut.PRODUCTS,
    *int8.PRODUCTS,
    *int4.PRODUCTS,
)

# Called with the rows, the weight, whether to launch dependently (`dependent`), and what the
# epilogue needs besides: RESIDUAL the residual, ROTATE the cache and the seats of the rows.
Launch = Callable[..., Any]


class ProductTable:
    """Rows in the order in which they are asked.

    quantises: whether a product of so many rows with a weight reads them quantised.
    """

    def __init__(
        self, products: Sequence[Product], quantises: Callable[[int, Weight], bool]
    ) -> None:
        self._products, self.quantises = products, quantises
        self._found: dict[tuple[Epilogue, Problem], Launch | None] = {}

    def find(
        self, epilogue: Epilogue, x: Activation, weight: Weight, width: int = 0
    ) -> Launch | None:
        """What computes the product with this epilogue at once; None: it takes a second launch.

        width: of a head, for ROTATE.
        """
        return self.of(epilogue, Problem.of(x.x, weight, width, x.norm is not None))

    def normalises(self, x: Tensor, weight: Weight) -> bool:
        """Whether a product of these rows with a weight takes them before their norm."""
        return self.of(Epilogue.NONE, Problem.of(x, weight, raw=True)) is not None

    def of(self, epilogue: Epilogue, problem: Problem) -> Launch | None:
        """`find` for a problem."""
        key = (epilogue, problem)
        if key not in self._found:
            self._found[key] = self._first(epilogue, problem)
        return self._found[key]

    def _first(self, epilogue: Epilogue, problem: Problem) -> Launch | None:
        for product in self._products:
            if (product.layout, product.epilogue) != (problem.layout, epilogue):
                continue
            if problem.rows in product.rows and product.raw is problem.raw:
                config = product.config(problem)
                if config is not None:
                    return partial(product.launch, config)
        return None


def quantises(rows: int, weight: Weight) -> bool:
    """Whether a product of so many rows with this weight reads them in FP8."""
    return fp8.quantises(rows, weight) or int4.quantises(rows, weight)


FASTEST = ProductTable(PRODUCTS, quantises)
find = FASTEST.find
