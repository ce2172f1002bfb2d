"""The ring in shared memory through which weights in whole numbers of 4 bits go, for Hopper.

A tile of 64 rows and 128 columns stands together in memory (`penstock_kernels.int4`), and the tiles
of a weight along k behind one another: so a stage's tiles are one copy, and so are their scales and
zeros.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from penstock_kernels.gpu.launch.hopper import tma_descriptor
from penstock_kernels.weight import Weight

ROWS = 64  # of a tile of the weight
DEPTH = 128
LINES = 32  # of 128 bytes in a tile


@gluon.jit
def int4_room(weight, scale, zero, TILES: gl.constexpr, ZEROS: gl.constexpr):
    """Shared memory for TILES of what each descriptor copies at once: numbers, scales and, with
    ZEROS, zeros."""
    w_tiles = gl.allocate_shared_memory(
        weight.dtype, [TILES, weight.block_shape[0], 128], weight.layout
    )
    s_tiles = gl.allocate_shared_memory(scale.dtype, [TILES, scale.block_shape[0]], scale.layout)
    z_tiles = s_tiles
    if ZEROS:
        z_tiles = gl.allocate_shared_memory(zero.dtype, [TILES, zero.block_shape[0]], zero.layout)
    return w_tiles, s_tiles, z_tiles


@gluon.jit
def load_tiles(ring, source, at, slot, ready, G: gl.constexpr, ZEROS: gl.constexpr):
    """Copy numbers, scales and zeros from the weight's tile `at` on to a slot of the ring; ready:
    the barrier that is told. G: groups of a tile."""
    weight, scale, zero = source
    tma.async_copy_global_to_shared(weight, [at * 32, 0], ready, ring[0].index(slot))
    tma.async_copy_global_to_shared(scale, [at * G * 64], ready, ring[1].index(slot))
    if ZEROS:
        tma.async_copy_global_to_shared(zero, [at * G * 64], ready, ring[2].index(slot))


def descriptors(
    weight: Weight, tiles: int = 1
) -> tuple[TensorDescriptor, TensorDescriptor, TensorDescriptor]:
    """A weight's numbers, scales and zeros (scales again where it has none), to be copied so many
    tiles along k at once."""
    assert weight.scale is not None
    columns = 64 * tiles * (DEPTH // weight.scale_columns)
    numbers = tma_descriptor(weight.data.view(-1, 128), LINES * tiles, 128)
    scale = _line(weight.scale, columns)
    return numbers, scale, scale if weight.zero is None else _line(weight.zero, columns)


def _line(values: Tensor, count: int) -> TensorDescriptor:
    """Scales or zeros as one line, of which so many are copied at once."""
    layout = gl.NVMMASharedLayout.get_default_for([count], gl.float16)
    return TensorDescriptor.from_tensor(values.view(-1), [count], layout)
