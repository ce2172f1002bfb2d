"""Tiles of products of one row within a whole decode step, in half precision or FP8.

    python -m benchmarks.kernels.one_row_tiles --format bf16

Llama-3.1-8B, random weights, 512 tokens of context, as `one_row`: microseconds of a step as it is
served, and with the tile of one product changed, then with all changes that gained.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import partial

import torch
from benchmarks.kernels.int4_variants import SHAPES
from benchmarks.kernels.one_row import HIDDEN, VOCABULARY, Step, decoder
from benchmarks.kernels.timing import microseconds

from penstock_kernels.gpu.launch.ahead import compile_only
from penstock_kernels.gpu.products import dense
from penstock_kernels.gpu.products.linear import Tile
from penstock_kernels.gpu.products.problem import Epilogue, Problem, Product
from penstock_kernels.gpu.products.table import FASTEST, PRODUCTS, ProductTable
from penstock_kernels.weight import Layout

GAIN = 3.0  # microseconds of a step that count
Change = tuple[str, tuple[int, int, int]]  # product; rows of the weight, depth and warps of a tile
TRIED: dict[str, tuple[Change, ...]] = {
    "bf16": (
        ("qkv", (4, 4096, 8)), ("qkv", (2, 1024, 4)), ("o", (4, 2048, 8)), ("o", (2, 1024, 4)),
        ("down", (4, 1024, 4)), ("down", (2, 2048, 8)), ("gate_up", (4, 1024, 8)),
        ("head", (4, 4096, 8)),
    ),
    "fp8": (
        ("qkv", (4, 4096, 4)), ("qkv", (4, 4096, 8)), ("o", (4, 4096, 4)), ("o", (2, 4096, 4)),
        ("gate_up", (2, 4096, 4)), ("gate_up", (4, 2048, 4)), ("down", (4, 2048, 4)),
        ("down", (2, 2048, 4)), ("head", (4, 4096, 8)),
    ),
}  # fmt: skip
OF = {"bf16": Layout.DENSE, "fp8": Layout.FP8}


def row(form: str, change: Change) -> tuple[Product, ...]:
    """Rows of the table that have a product computed so."""
    name, (rows, depth, warps) = change
    n, k, gated = SHAPES.get(name, (VOCABULARY, HIDDEN, False))
    layout = OF[form] if name in SHAPES else Layout.DENSE

    def config(p: Problem) -> Tile | None:
        return Tile(rows, depth, warps, 2) if (p.n, p.k) == (n, k) else None

    of = partial(Product, layout)
    if gated:
        return (of(Epilogue.GATED, range(1, 2), config, dense.launch_gated_tile),)
    return (of(Epilogue.NONE, range(1, 2), config, dense.launch_tile),)


def table(form: str, changes: Iterable[Change]) -> ProductTable:
    """A product that is changed is not split."""
    changes = list(changes)
    whole = {SHAPES[name][:2] for name, _ in changes if name in SHAPES}

    def kept(product: Product) -> Product:
        if product.epilogue is not Epilogue.PARTIAL or product.layout is not OF[form]:
            return product
        config = product.config
        alone = lambda p: None if (p.n, p.k) in whole and p.rows == 1 else config(p)  # noqa: E731
        return Product(product.layout, product.epilogue, product.rows, alone, product.launch)

    rows = [each for change in changes for each in row(form, change)]
    return ProductTable([*rows, *map(kept, PRODUCTS)], FASTEST.quantises)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=tuple(TRIED), default="bf16")
    arguments = parser.parse_args()
    form = arguments.format
    model = decoder(form)
    tables = [table(form, ()), *(table(form, (change,)) for change in TRIED[form])]
    with compile_only():
        for each in tables:
            Step(model.for_compiling(), each)()
    torch.cuda.synchronize()
    times = [microseconds(Step(model, each), 2, 40) for each in tables]
    print(f"{form}: served {times[0]:.0f} us")
    best: dict[str, tuple[float, Change]] = {}
    for change, us in zip(TRIED[form], times[1:], strict=True):
        print(f"  {change[0]:8} {change[1]}: {us - times[0]:+.0f}")
        if us < min(times[0] - GAIN, best.get(change[0], (us + 1, change))[0]):
            best[change[0]] = (us, change)
    together = table(form, (change for _, change in best.values()))
    us, again = (microseconds(Step(model, each), 2, 40) for each in (together, tables[0]))
    print(f"all that gained: {us:.0f} us; served again {again:.0f}")


if __name__ == "__main__":
    main()
