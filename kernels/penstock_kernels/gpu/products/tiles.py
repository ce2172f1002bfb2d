"""Tiles of the portable products: measured for one row, a sane choice for more.

Measured behind a norm with dependent launch, by benchmarks/kernels/chain.py
(benchmarks/results/h100_chain.json). Other GPUs use the same.
"""

from __future__ import annotations

from penstock_kernels.gpu.products.linear import Tile

# One row, (n, k) of weights: (weight rows, depth, warps).
_ONE_ROW: dict[tuple[int, int], tuple[int, int, int]] = {
    (28672, 4096): (2, 1024, 4),  # gate-up of Llama-3.1-8B
    # Its other products, within whole steps on an H200 (benchmarks/kernels/one_row_tiles.py).
    (6144, 4096): (2, 1024, 4),
    (4096, 14336): (2, 2048, 8),
    (128256, 4096): (4, 4096, 8),
    (3072, 2048): (2, 1024, 4),  # Llama-3.2-1B: qkv, o, gate-up, head
    (2048, 2048): (2, 1024, 4),
    (16384, 2048): (2, 1024, 4),
    (128256, 2048): (2, 1024, 4),
}
MOST_ROWS = 64
WIDE = 32768  # from so many outputs on, tiles fill the card whatever the shape


def tile_for(rows: int, n: int, k: int, gated: bool) -> Tile | None:
    """The tile for a product of [rows, k] with a weight [n, k]; None: leave it to cuBLAS."""
    if rows == 1:
        return _one_row(n, k, gated)
    wide = n // 2 if gated else n
    if rows > MOST_ROWS or k % 128 or wide % 64 or not (gated or n >= WIDE):
        return None
    return Tile(64, 128, 4, 3)  # what won for every shape that was measured


def _one_row(n: int, k: int, gated: bool) -> Tile | None:
    """Two rows of the weight a program; long ones in shorter pieces."""
    if (n, k) in _ONE_ROW:
        return Tile(*_ONE_ROW[n, k], 2)
    if n % (4 if gated else 2):
        return None
    if k <= 8192 and k % 2048 == 0:
        return Tile(2, 2048, 8, 2)
    return Tile(2, 1024, 4, 2) if k % 1024 == 0 else None
