"""A decode step of one row: norms within products and norms as launches of their own, side by side.

    python -m benchmarks.kernels.one_row --out one_row.json

For Llama-3.1-8B in bfloat16, FP8 and 4 bits in groups of 128: tiles of each product, alone in a
CUDA graph over distinct weights, fastest first; then the whole step, captured with dependent
launch at 512 tokens of context, as it was with a launch for each norm, as it is served, and with
the fastest tiles. Then how long each kernel of the step takes, launched one by one. Takes a minute
on one card.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.kernels.int4_variants import random_weight as random_int4
from benchmarks.kernels.timing import microseconds
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from penstock_kernels.gpu.attention import hopper_decode
from penstock_kernels.gpu.device import TritonDevice
from penstock_kernels.gpu.launch.ahead import compile_only
from penstock_kernels.gpu.products.hopper_int4 import Int4Config
from penstock_kernels.gpu.products.hopper_int4_raw import hopper_int4_raw
from penstock_kernels.gpu.products.hopper_int4_row import hopper_int4_row
from penstock_kernels.gpu.products.linear import Tile, linear_one_row
from penstock_kernels.gpu.products.problem import Epilogue, Problem, Product
from penstock_kernels.gpu.products.raw_row import RawTile, raw_row_linear
from penstock_kernels.gpu.products.table import FASTEST, PRODUCTS, ProductTable
from penstock_kernels.ops import Act, Activation, AttentionSpec, Norm, StepBatch
from penstock_kernels.weight import Layout, Weight
from penstock_shard.model.blocks import Sequential
from penstock_shard.model.decoder import Decoder
from penstock_shard.model.layers import (
    Attention,
    Mlp,
    RowParallel,
    VocabularyEmbedding,
    VocabularyHead,
)
from penstock_shard.model.rope_config import Rope
from penstock_shard.ranks.parallel import Group

HIDDEN, INNER, VOCABULARY, LAYERS, PAGE, CONTEXT = 4096, 14336, 128256, 32, 64, 512
SPEC = AttentionSpec(32, 8, 128, 128**-0.5)
SHAPES = {  # (n, k, gated), and whether a product adds to the residual
    "qkv": (6144, 4096, False, False),
    "o": (4096, 4096, False, True),
    "gate_up": (28672, 4096, True, False),
    "down": (4096, 14336, False, True),
    "head": (VOCABULARY, 4096, False, False),
}
VECTORS = {  # rows of the weight, depth, warps
    Layout.DENSE: [
        *((2, 1024, 4), (2, 2048, 8), (4, 1024, 4), (4, 2048, 8), (4, 4096, 8), (1, 2048, 4)),
        (2, 4096, 8),
    ],
    Layout.FP8: [
        *((8, 4096, 4), (4, 4096, 4), (8, 4096, 8), (4, 4096, 8), (8, 2048, 4), (4, 2048, 4)),
        *((2, 2048, 2), (4, 2048, 2)),
    ],
}
RAWS = [  # rows of the weight, warps, programs of a multiprocessor
    *((4, 4, 2), (2, 4, 3), (2, 4, 4), (1, 4, 6), (4, 8, 2), (2, 8, 3), (8, 8, 1)),
]
DEPTHS = (4, 6, 8)  # steps that a product of 4 bits reads ahead
RINGS = [(1, 4), (1, 6), (2, 3), (2, 4), (2, 5), (4, 2)]  # tiles of a stage, and stages
AHEAD = (8, 16)  # MiB of o that attention asks for
MANY = 8  # rows of another step
FORMATS = {"4 bits": Layout.INT4, "FP8": Layout.FP8, "bfloat16": Layout.DENSE}
PLAIN, DEFERRED, STANDING = "plain", "deferred", "standing"
Config = Tile | RawTile | Int4Config | int


@dataclass(frozen=True)
class How:
    """A launch: of a row after its norm, or before it, which is part of the product then. DEFERRED:
    the sums are divided; STANDING: programs normalise first, and go from tile to tile."""

    kind: str
    config: Config | None  # None: as the table has it

    def __str__(self) -> str:
        if self.config is None or isinstance(self.config, int):
            return f"{self.config}"
        numbers = [value for value in asdict(self.config).values() if not isinstance(value, bool)]
        return "/".join(map(str, numbers))


def random_weight(layout: Layout, n: int, k: int) -> Weight:
    if layout is Layout.INT4:
        return random_int4(n, k)
    if layout is Layout.DENSE:
        data = torch.empty(n, k, device="cuda", dtype=torch.bfloat16)
        return Weight(data.normal_(0, k**-0.5))
    bits = torch.randint(0, 256, (n, k), device="cuda", dtype=torch.uint8)
    bits &= 0xBF  # below 2, and no NaN
    scale = torch.full((n, 1), k**-0.5, device="cuda")
    return Weight(bits.view(torch.float8_e4m3fn), None, layout, scale)


def launch(name: str, x: Tensor, weight: Weight, norm: Norm, out: Tensor, how: How) -> None:
    """One product as a step has it."""
    gated, adds = SHAPES[name][2:]
    before = None if how.kind == PLAIN else norm
    match how.config:
        case Tile() as tile:
            linear_one_row(x, weight, out, tile, gated, True, before, adds)
        case RawTile() as raw:
            raw_row_linear(x, norm, weight, out, raw, gated, True)
        case Int4Config() as ring:
            hopper_int4_raw(x, norm, weight, out, ring, True)
        case None:
            served = FASTEST.find(Epilogue.GATED, Activation(x), weight)
            assert served is not None
            served(x=Activation(x), weight=weight, dependent=True)
        case ahead:
            hopper_int4_row(x, weight, out, ahead, True, before, adds)


def variants(name: str, layout: Layout) -> list[How]:
    n, k, gated, adds = SHAPES[name]
    wide = n // 2 if gated else n
    if name == "head" and layout is not Layout.DENSE:
        return []
    if layout is Layout.INT4 and gated:
        rings = [Int4Config(1, depths, stages, 2, True) for depths, stages in RINGS]
        return [How(PLAIN, None), *(How(STANDING, ring) for ring in rings)]
    if layout is Layout.INT4:
        depths = [depth for depth in DEPTHS if depth <= k // 512]
        kinds = (PLAIN,) if adds else (PLAIN, STANDING)
        return [How(kind, depth) for kind in kinds for depth in depths]
    tiles = [Tile(*tile, 2) for tile in VECTORS[layout]]
    tiles = [tile for tile in tiles if not (wide % tile.n or k % tile.k)]
    if adds:
        return [How(PLAIN, tile) for tile in tiles]
    raws = [RawTile(*raw) for raw in RAWS]
    both = [How(kind, tile) for kind in (PLAIN, DEFERRED) for tile in tiles]
    return both + [How(STANDING, raw) for raw in raws if wide % raw.n == 0]


@dataclass
class Products:
    """Weights of a shape, as many as the second cache cannot hold."""

    name: str
    layout: Layout

    def __post_init__(self) -> None:
        n, k, gated, _ = SHAPES[self.name]
        size = n * k * {Layout.DENSE: 2, Layout.FP8: 1, Layout.INT4: 0.5}[self.layout]
        copies = max(2, min(16, int(-(-(1 << 29) // size))))
        self.weights = [random_weight(self.layout, n, k) for _ in range(copies)]
        self.x = torch.randn(1, k, device="cuda").bfloat16()
        self.xs = torch.randn(MANY, k, device="cuda").bfloat16()
        self.norm = Norm(torch.ones(k, device="cuda").bfloat16(), 1e-5)
        self.out = torch.zeros(1, n // 2 if gated else n, device="cuda").bfloat16()
        self.bytes = size * (1.03125 if self.layout is Layout.INT4 else 1)

    def one(self, how: How, i: int = 0) -> None:
        weight = self.weights[i % len(self.weights)]
        launch(self.name, self.x, weight, self.norm, self.out, how)

    def many(self, i: int = 0) -> None:
        """Of MANY rows, as it is served."""
        gated, adds = SHAPES[self.name][2:]
        epilogues = (Epilogue.GATED,) if gated else (Epilogue.PARTIAL,) if adds else ()
        rows, weight = Activation(self.xs), self.weights[i % len(self.weights)]
        for epilogue in (*epilogues, Epilogue.NONE):
            if served := FASTEST.find(epilogue, rows, weight):
                served(rows, weight, True)
                return

    def fastest(self) -> list[tuple[float, How]]:
        timed = []
        for how in variants(self.name, self.layout):
            run = functools.partial(self.one, how)
            timed.append((microseconds(run, replays=6), how))
        return sorted(timed, key=lambda pair: pair[0])


def decoder_of(layout: Layout) -> Decoder:
    group = Group()
    make = functools.partial(random_weight, layout)
    norm = functools.partial(torch.ones, HIDDEN, device="cuda", dtype=torch.bfloat16)
    blocks = [
        Sequential(
            Norm(norm(), 1e-5),
            Attention(SPEC, make(6144, HIDDEN), None, RowParallel(make(HIDDEN, 4096), group)),
            Norm(norm(), 1e-5),
            Mlp(make(2 * INNER, HIDDEN), RowParallel(make(HIDDEN, INNER), group), Act.SILU, True),
        )
        for _ in range(LAYERS)
    ]
    head = random_weight(Layout.DENSE, VOCABULARY, HIDDEN)
    table = torch.randn(VOCABULARY, HIDDEN, device="cuda").bfloat16()
    rope = Rope(kind="default", theta=500000.0, original_positions=8192)
    return Decoder(
        VocabularyEmbedding(table, 0, group), list(blocks), Norm(norm(), 1e-5),
        VocabularyHead(head, VOCABULARY, group), ((rope, SPEC.width),),
    )  # fmt: skip


class Step:
    """A decode step of some rows, as the shard captures it."""

    def __init__(
        self, decoder: Decoder, products: ProductTable, rows: int = 1, dependent: bool = True
    ) -> None:
        blocks = rows * 1024 // PAGE
        shape = (len(decoder.blocks), 2, SPEC.kv_heads, blocks + 1, PAGE, SPEC.width)
        self.cache = torch.zeros(shape, device="cuda", dtype=torch.bfloat16)
        table = torch.arange(1, blocks + 1, device="cuda", dtype=torch.int32).view(rows, -1)
        self.table = torch.cat((table, torch.zeros_like(table[:1])))
        self.slot = torch.arange(rows, device="cuda")
        self.last = torch.full((rows + 1,), 7, device="cuda")
        self.lengths = torch.full((rows + 1,), CONTEXT, device="cuda")
        self.kept = torch.empty(rows, VOCABULARY, device="cuda", dtype=torch.bfloat16)
        self.token = torch.zeros(rows, device="cuda", dtype=torch.int64)
        ropes = decoder.rope_tables(1024, torch.device("cuda", 0))
        self.device = TritonDevice(decoder.specs(), ropes, 8, self.cache, dependent, torch.bfloat16)
        self.device.products = products
        self.decoder, self.rows = decoder, rows

    def __call__(self, i: int = 0) -> None:
        device = self.device
        token, position = device.read_slots(self.slot, self.last, self.lengths, None)
        step = device.step(StepBatch(self.slot, position, self.table, self.rows))
        hidden = self.decoder.forward(step, token, position, self.cache)
        logits = self.decoder.head(hidden, step)
        assert logits is not None
        device.argmax_into(logits, self.kept, self.token)
        device.advance_slots(self.slot, position, None, self.token, self.last, self.lengths)


def launched_norms() -> ProductTable:
    """The table as it was: what normalises and adds is left out."""
    kept = [
        product
        for product in PRODUCTS
        if (product.epilogue, product.rows) != (Epilogue.RESIDUAL, range(1, 2))
        and not product.raw
        and "_row" not in product.launch.__name__
    ]
    return ProductTable(kept, FASTEST.quantises)


Best = dict[tuple[int, int], Config | None]


def table_of(plain: Best, raw: Best | None = None, adds: bool = True) -> ProductTable:
    """Products of one row with these launches, of rows after their norm and before it (None: always
    after it), without parts. adds: whether o and down add to the residual."""

    def chosen(product: Product, p: Problem) -> Any:
        found = product.config(p)
        if p.rows != 1 or found is None:
            return found
        if product.epilogue is Epilogue.PARTIAL:
            return None
        ours = ((raw or {}) if product.raw else plain).get((p.n, p.k), found)
        mixed = product.layout is Layout.INT4 and type(ours) is not type(found)
        return found if mixed and ours is not None else ours

    kept = [
        replace(product, config=functools.partial(chosen, product))
        for product in PRODUCTS
        if (raw is not None or not product.raw)
        and (adds or (product.epilogue, product.rows) != (Epilogue.RESIDUAL, range(1, 2)))
    ]
    return ProductTable(kept, FASTEST.quantises)


def kernels_of(step: Callable[[], None]) -> list[tuple[str, float, float]]:
    """Name, microseconds and number of each kernel of a step that was launched one by one."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(4):
            step()
        torch.cuda.synchronize()
    for event in recorded.events():
        found[event.name][0] += event.device_time / 4
        found[event.name][1] += 1 / 4
    return sorted(((name, us, n) for name, (us, n) in found.items()), key=lambda x: -x[1])


def compiled(groups: list[Products], decoder: Decoder) -> None:
    """Side by side, before anything is measured."""
    few = decoder.for_compiling()
    with compile_only():
        for products in (FASTEST, launched_norms()):
            Step(few, products)()
            Step(few, products, dependent=False)()
        for ahead, rows in itertools.product((0, *AHEAD), (1, MANY)):
            hopper_decode.MOST_AHEAD = ahead << 20
            Step(few, FASTEST, rows)()
        for group in groups:
            for how in variants(group.name, group.layout):
                group.one(how)
            group.many()


def distance(found: Tensor, expected: Tensor) -> float:
    a, b = found.double(), expected.double()
    return float(1 - 2 * (a * b).sum() / ((a**2).sum() + (b**2).sum()))


def ways(best: dict[str, Best]) -> list[tuple[str, ProductTable, int, int]]:
    """Name, table, MiB of o that attention asks for, rows."""
    plain, deferred, standing = (best[kind] for kind in (PLAIN, DEFERRED, STANDING))
    tables = [
        ("launched", launched_norms()),
        ("tiles", table_of(plain, None, adds=False)),
        ("adds", table_of(plain)),
        *([("deferred", table_of(plain, deferred))] if deferred else []),
        ("standing", table_of(plain, standing)),
        ("mixed", table_of(plain, best["mixed"])),
    ]
    found = [(name, table, 0, 1) for name, table in tables]
    found += [(f"mixed {ahead}", tables[-1][1], ahead, 1) for ahead in AHEAD]
    return found + [(f"{MANY} rows {ahead}", FASTEST, ahead, MANY) for ahead in (0, AHEAD[0])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name()}
    for name in arguments.formats:
        layout = FORMATS[name]
        groups = [Products(shape, layout) for shape in SHAPES if variants(shape, layout)]
        decoder = decoder_of(layout)
        compiled(groups, decoder)
        print(f"{name}, compiled at {time.monotonic() - began:.0f} s", flush=True)
        best: dict[str, Best] = {kind: {} for kind in (PLAIN, DEFERRED, STANDING, "mixed")}
        for group in groups:
            timed, shape = group.fastest(), SHAPES[group.name][:2]
            tops = {}
            for us, how in reversed(timed):
                tops[how.kind] = f"{how.kind} {us:.1f} {how}"
                if how.config is not None:
                    best[how.kind][shape] = how.config
                if how.kind != PLAIN:
                    best["mixed"][shape] = how.config
            many = microseconds(group.many, replays=6)
            print(f" {group.name:8}" + ", ".join(tops.values()) + f"; {MANY} rows {many:.1f}")
            results[f"{name} {group.name}"] = [(us, how.kind, str(how)) for us, how in timed]
        del groups
        logits: dict[int, Tensor] = {}
        times = []
        for way, products, ahead, rows in ways(best):
            hopper_decode.MOST_AHEAD = ahead << 20
            step = Step(decoder, products, rows)
            step()
            wrong = distance(step.kept, logits.setdefault(rows, step.kept.clone()))
            us = microseconds(step, 2, 24)
            results[f"{name} step {way}"] = us
            times.append(f"{way} {us:.0f} ({wrong:.0e})")
        print(" step, us: " + "; ".join(times), flush=True)
        hopper_decode.MOST_AHEAD = 0
        results[f"{name} kernels"] = kernels_of(Step(decoder, FASTEST, dependent=False))
        del decoder, step
        torch.cuda.empty_cache()
        if arguments.out:
            arguments.out.write_text(json.dumps(results, indent=1))
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
