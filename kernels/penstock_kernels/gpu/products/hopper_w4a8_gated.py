"""silu(gate) * up of many rows in FP8 with weights in whole numbers of 4 bits, for Hopper.

As `hopper_w4a8`, but of the two groups of warps one has 64 rows of the gate and the other the same
rows of up, which it hands over in shared memory. So neither stands in memory: at 2048 rows of
Llama-3.1-8B that is 117 MB written and read again.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from penstock_kernels.gpu.launch.hopper import multiprocessors, tile_layout, tma_descriptor
from penstock_kernels.gpu.products.hopper_int4_many import load, turns, unit_of
from penstock_kernels.gpu.products.hopper_int4_ring import DEPTH, descriptors, int4_room
from penstock_kernels.gpu.products.hopper_ring import ring_barriers
from penstock_kernels.gpu.products.hopper_w4a8 import scaled, store, sums, w4a8_config
from penstock_kernels.weight import Weight

COLUMNS = 64  # of the result
STAGES = {64: 9, 128: 6, 256: 4}  # by rows of a tile


@gluon.jit
def _gated(acc, up, dtype: gl.constexpr):
    """As two launches would have it: what the activation reads and makes is rounded."""
    gate = acc.to(dtype).to(gl.float32)
    gate = (gate / (1 + gl.exp(-gate))).to(dtype)
    return gate.to(gl.float32) * up.to(gl.float32)


@gluon.jit
def _multiply(
    plan, ring, hand, target, x_scale, bias, HALF: gl.constexpr, G: gl.constexpr,
    ZEROS: gl.constexpr, STAGES: gl.constexpr, BIASED: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    """The gate, and what is stored (HALF 0), or up, which is handed over (1)."""
    held, handed, taken = hand
    out, rows, columns = target
    ROWS: gl.constexpr = ring[3].shape[1]
    dtype: gl.constexpr = out.dtype.element_ty
    if PDL:
        gdc_wait()
    done = 0
    for turn in range(turns(plan)):
        row, column, split, first, count = unit_of(plan, turn)
        acc, second = sums(ring, done, count, HALF, G, ZEROS, STAGES)
        done += count
        line, member = row * ROWS, column * 64
        own = bias
        if HALF == 1:
            own = bias + columns
        acc = scaled(acc, x_scale, own, line, member, rows, columns, BIASED)
        if ROWS > 128:
            second = scaled(second, x_scale, own, line + 128, member, rows, columns, BIASED)
        layout: gl.constexpr = acc.type.layout
        if HALF == 1:
            mbarrier.wait(taken, (turn + 1) & 1)
            held.index(0).store(acc.to(dtype))
            if ROWS > 128:
                held.index(1).store(second.to(dtype))
            mbarrier.arrive(handed)
        else:
            mbarrier.wait(handed, turn & 1)
            acc = _gated(acc, held.index(0).load(layout), dtype)
            if ROWS > 128:
                second = _gated(second, held.index(1).load(layout), dtype)
            mbarrier.arrive(taken)
            store(acc, target, split, line, member)
            if ROWS > 128:
                store(second, target, split, line + 128, member)


@gluon.jit(do_not_specialize=["rows"])
def _kernel(
    x,  # descriptor of [rows, k] in tiles of [ROWS, 128], columns as `int4.interleave` has them
    by,  # [rows], the scales of x
    weight,  # descriptor of lines [2 * n / 64 * k / 128 * 32, 128] in tiles of 32, the gate first
    scale,  # descriptor of [2 * n * k / 128 * G] in tiles of [64 G]
    zero,  # the same, with ZEROS
    out,  # [rows, n]
    bias,  # [2 * n], with BIASED
    rows,
    columns,  # n
    depth,  # k
    G: gl.constexpr,  # groups of a tile
    ZEROS: gl.constexpr,
    BIASED: gl.constexpr,
    STAGES: gl.constexpr,
    UP_LAYOUT: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:
        gdc_launch_dependents()
    ROWS: gl.constexpr = x.block_shape[0]
    N: gl.constexpr = min(ROWS, 128)
    w_tiles, s_tiles, z_tiles = int4_room(weight, scale, zero, 2 * STAGES, ZEROS)
    x_tiles = gl.allocate_shared_memory(x.dtype, [STAGES, ROWS, 128], x.layout)
    held = gl.allocate_shared_memory(out.dtype.element_ty, [ROWS // N, 64, N], UP_LAYOUT)
    full, empty = ring_barriers(STAGES, 2)
    hands = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(2):
        mbarrier.init(hands.index(i), count=1)
    fence_async_shared()
    ring = (w_tiles, s_tiles, z_tiles, x_tiles, full, empty)
    hand = (held, hands.index(0), hands.index(1))
    KINDS: gl.constexpr = 2 if ZEROS else 1
    BYTES: gl.constexpr = 2 * (4096 + KINDS * 128 * G) + ROWS * 128
    rows, columns = gl.to_tensor(rows), gl.to_tensor(columns)
    depths, tiles = gl.cdiv(gl.to_tensor(depth), 128), columns // 64
    plan = (gl.cdiv(rows, ROWS), tiles, depths, gl.to_tensor(1))
    to = (out, rows, columns)
    source = (x, weight, scale, zero, depths, gl.to_tensor(1), tiles)
    FIRST: gl.constexpr = gl.constexpr(0)
    SECOND: gl.constexpr = gl.constexpr(1)
    gl.warp_specialize(
        [
            (
                _multiply,
                (plan, ring, hand, to, by, bias, FIRST, G, ZEROS, STAGES, BIASED, PDL),
            ),
            (
                _multiply,
                (plan, ring, hand, to, by, bias, SECOND, G, ZEROS, STAGES, BIASED, PDL),
            ),
            (load, (plan, ring, source, G, ZEROS, STAGES, BYTES, PDL)),
        ],
        [4, 1],
        [232, 24],
    )


def gated_w4a8_tile(rows: int, n: int, k: int, group: int, multiprocessors: int) -> int | None:
    """Rows of a tile for [rows, k] and a weight [n, k] in groups of so many columns; None: not this
    way. As many as a product of its own has."""
    config = w4a8_config(rows, n, k, group, False, multiprocessors)
    return None if config is None or n % (2 * COLUMNS) else config.rows


def hopper_w4a8_gated(
    x: Tensor, x_scale: Tensor, weight: Weight, out: Tensor, tile: int, dependent: bool = False
) -> None:  # fmt: skip
    """out = silu(gate) * up of x W^T + b.

    As `hopper_w4a8`, but weight: [2 * n, k], the gate's rows first; out: [rows, n].
    """
    rows, depth = x.shape
    columns = weight.n // 2
    tiles = -(-rows // tile) * (columns // COLUMNS)
    _kernel[(min(tiles, multiprocessors(x.device)),)](
        tma_descriptor(x, tile, DEPTH), x_scale, *descriptors(weight), out,
        x_scale if weight.bias is None else weight.bias, rows, columns, depth,
        G=DEPTH // weight.scale_columns, ZEROS=weight.zero is not None,
        BIASED=weight.bias is not None, STAGES=STAGES[tile],
        UP_LAYOUT=tile_layout(64, min(tile, 128), out.dtype),
        PDL=dependent, num_warps=4, maxnreg=168, launch_pdl=dependent,
    )  # fmt: skip
