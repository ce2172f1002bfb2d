"""Which kernel computes a product: the first row of the table that has a launch for it.

Every layout has a row for every problem with the epilogue NONE. Each other epilogue has a second
launch that comes to the same (`step`), so a new layout works everywhere with its first row, and
rows that do more at once are added where a measurement says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

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


def find(epilogue: Epilogue, x: Activation, weight: Weight, width: int = 0) -> Launch | None:
    """What computes the product with this epilogue at once; None: it takes a second launch.

    width: of a head, for ROTATE.
    """
    return _find(epilogue, Problem.of(x.x, weight, width))


@functools.lru_cache(maxsize=4096)
def _find(epilogue: Epilogue, problem: Problem) -> Launch | None:
    for product in PRODUCTS:
        if (product.layout, product.epilogue) != (problem.layout, epilogue):
            continue
        if problem.rows in product.rows:
            config = product.config(problem)
            if config is not None:
                return partial(product.launch, config)
    return None
