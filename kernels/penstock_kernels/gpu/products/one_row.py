"""Products of one row with weights of 8 bits or 4-bit codes, for Hopper: which of two kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from penstock_kernels.gpu.launch.hopper import is_hopper, multiprocessors
from penstock_kernels.gpu.products.hopper_digits import PIECE, row_bytes
from penstock_kernels.gpu.products.hopper_row import GRANULE, RowConfig, hopper_row
from penstock_kernels.gpu.products.hopper_row_ring import RingConfig, hopper_row_ring
from penstock_kernels.gpu.products.hopper_row_stage import step_bytes
from penstock_kernels.gpu.products.problem import Epilogue, Problem, Product, gated
from penstock_kernels.ops import Activation, Norm
from penstock_kernels.weight import Layout, Weight

GROUP = 64  # columns of a block of scales of codes
STEP = 4 * PIECE  # columns
LONG = 8192  # numbers of a row
MOST = 16384
SHARED = 222 << 10  # bytes of a multiprocessor's shared memory
MOST_STEPS = 18  # of a ring

Config = RowConfig | RingConfig


def config_for(n: int, k: int, layout: Layout, gated: bool, multiprocessors: int) -> Config | None:
    """How to multiply one row of k by a weight [n, k]; None: not this way.

    By what a whole step of Llama-3.1-8B was fastest with on an H200. Codes all go through rings,
    small ones for short rows, whose kernels then start beside others.
    """
    wide, steps = n // 2 if gated else n, k // STEP
    if wide % (2 * GRANULE) or k % STEP or k > MOST:
        return None
    is_long, many = k > LONG, n // GRANULE > 2 * multiprocessors
    if layout is Layout.LUT:
        depths = 1 if steps % 2 else 2
        if gated or is_long:
            return RingConfig(8, depths, _stages(k, layout, depths, 1), 1, 168 if gated else 80)
        return RingConfig(4, depths, 8 // depths, 3 if many else 2, 80)
    if gated or is_long:
        residents = 1 if is_long else 2
        stages = _stages(k, layout, 1, residents)
        return RingConfig(8, 1, stages, residents, 168 if is_long else 80)
    if many:
        return RowConfig(4, min(steps, 4 if layout is Layout.FP8 else 6), 168)
    return RowConfig(4, min(steps, 8), 255)


def _stages(k: int, layout: Layout, depths: int, residents: int) -> int:
    """As many as fit beside the row, for eight warps."""
    room = SHARED // residents - row_bytes(k, layout)
    return min(room // (depths * step_bytes(layout, 8)), MOST_STEPS // depths)


def multiply(
    config: Config, x: Tensor, weight: Weight, out: Tensor, dependent: bool,
    norm: Norm | None = None, gated: bool = False, adds: bool = False,
) -> None:  # fmt: skip
    """`hopper_row_ring.hopper_row_ring`, by the kernel that a configuration is of."""
    if isinstance(config, RowConfig):
        hopper_row(x, weight, out, config, dependent, norm, gated, adds)
    else:
        hopper_row_ring(x, weight, out, config, dependent, norm, gated, adds)


def _launch(config: Config, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(1, weight.n)
    multiply(config, x.x, weight, out, dependent, x.norm)
    return out


def _launch_gated(config: Config, x: Activation, weight: Weight, dependent: bool) -> Tensor:
    out = x.x.new_empty(1, weight.n // 2)
    multiply(config, x.x, weight, out, dependent, x.norm, gated=True)
    return out


def _launch_added(
    config: Config, x: Activation, weight: Weight, dependent: bool, residual: Tensor
) -> None:
    multiply(config, x.x, weight, residual, dependent, adds=True)


def one_row_products(layout: Layout, fits: Callable[[Problem], bool]) -> tuple[Product, ...]:
    """Rows of the table for weights that fit."""

    def config(p: Problem, gated: bool = False) -> Config | None:
        if not (fits(p) and p.half and is_hopper(p.device)):
            return None
        return config_for(p.n, p.k, layout, gated, multiprocessors(p.device))

    row = partial(Product, layout)
    one = range(1, 2)
    return (
        row(Epilogue.NONE, one, config, _launch, True),
        row(Epilogue.NONE, one, config, _launch),
        row(Epilogue.RESIDUAL, one, config, _launch_added),
        row(Epilogue.GATED, one, gated(config), _launch_gated, True),
        row(Epilogue.GATED, one, gated(config), _launch_gated),
    )
