"""Tiles that were measured to be fastest, by GPU, shape of the weight and number of rows.

Measured behind a norm with dependent launch, by benchmarks/kernels/chain.py
(benchmarks/results/h100_chain.json). Other GPUs of the same architecture use the same.
"""

from __future__ import annotations

from penstock_kernels.gpu.linear import Tile

# (n, k, gated): rows of activations up to which it holds: (weight rows, depth, warps, stages);
# None: cuBLAS is faster. From more rows on it always is.
_HOPPER: dict[tuple[int, int, bool], dict[int, tuple[int, int, int, int] | None]] = {
    (6144, 4096, False): {
        1: (2, 2048, 8, 2),
        8: (64, 128, 4, 5),
        32: (64, 64, 4, 8),
        64: (64, 128, 4, 5),
    },  # qkv
    (4096, 4096, False): {
        1: (2, 2048, 8, 2),
        8: (64, 128, 4, 5),
        32: (64, 64, 4, 8),
        64: (64, 128, 4, 5),
    },  # o
    (28672, 4096, True): {
        1: (2, 1024, 4, 2),
        8: (64, 128, 4, 5),
        32: (64, 128, 4, 3),
        64: (64, 128, 4, 3),
    },  # gate_up
    (4096, 14336, False): {
        1: (1, 2048, 4, 2),
        8: (64, 128, 4, 5),
        32: (32, 256, 4, 5),
        64: None,
    },  # down
    (128256, 4096, False): {
        1: (2, 2048, 8, 2),
        8: (32, 256, 4, 5),
        32: (128, 128, 8, 3),
        64: (128, 128, 8, 3),
    },  # head
    (3072, 2048, False): {1: (2, 1024, 4, 2), 8: (32, 256, 4, 5), 32: None, 64: None},  # qkv_1b
    (2048, 2048, False): {1: (2, 1024, 4, 2), 8: (32, 256, 4, 5), 32: None, 64: None},  # o_1b
    (16384, 2048, True): {
        1: (2, 1024, 4, 2),
        8: (64, 128, 4, 3),
        32: (64, 128, 4, 3),
        64: (64, 128, 4, 3),
    },  # gate_up_1b
    (2048, 8192, False): {1: (2, 2048, 8, 2), 8: (32, 256, 4, 5), 32: None, 64: None},  # down_1b
    (128256, 2048, False): {
        1: (2, 1024, 4, 2),
        8: (64, 128, 4, 3),
        32: (64, 128, 4, 3),
        64: (128, 128, 8, 3),
    },  # head_1b
}
MEASURED_ROWS = {1: 1, 16: 8, 32: 32, 64: 64}  # up to so many rows: as measured with so many
MOST_ROWS = 64
WIDE = 32768  # from so many outputs on, tiles fill the card whatever the shape


def tile_for(rows: int, n: int, k: int, gated: bool) -> Tile | None:
    """The tile for a product of [rows, k] with a weight [n, k]; None: leave it to cuBLAS."""
    if rows > MOST_ROWS:
        return None
    measured = MEASURED_ROWS[min(most for most in MEASURED_ROWS if rows <= most)]
    if (n, k, gated) in _HOPPER:
        found = _HOPPER[n, k, gated][measured]
        return None if found is None else Tile(found[0], found[1], int(rows > 1), *found[2:])
    return _vector_tile(n, k, gated) if rows == 1 else _unmeasured(n, k, gated)


def _vector_tile(n: int, k: int, gated: bool) -> Tile | None:
    """Two rows of the weight a program; long ones in shorter pieces."""
    if n % (4 if gated else 2):
        return None
    if k <= 8192 and k % 2048 == 0:
        return Tile(2, 2048, 0, 8, 2)
    return Tile(2, 1024, 0, 4, 2) if k % 1024 == 0 else None


def _unmeasured(n: int, k: int, gated: bool) -> Tile | None:
    """Where the shape is not known: only what won for every shape that was measured."""
    wide = n // 2 if gated else n
    if k % 128 or wide % 64 or not (gated or n >= WIDE):
        return None
    return Tile(64, 128, 1, 4, 3)
