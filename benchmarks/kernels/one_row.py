"""A decode step of one row: norms that are launched, and norms within products.

    python -m benchmarks.kernels.one_row --format int4 --out one_row.json

Llama-3.1-8B in 4 bits in groups of 128, in nf4, FP8 or whole numbers of 8 bits, random weights, 512
tokens of context: the step as a server captures it, with dependent launch. First what each product
takes that normalises or adds, alone in a graph over distinct weights, and as it is computed where
its norm is launched (without that launch). Takes half a minute on one card.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from benchmarks.kernels import int4_variants, row_variants
from benchmarks.kernels.int4_variants import SHAPES, difference
from benchmarks.kernels.timing import microseconds
from torch import Tensor

from penstock_kernels.gpu.device import TritonDevice
from penstock_kernels.gpu.launch.ahead import compile_only
from penstock_kernels.gpu.products import one_row
from penstock_kernels.gpu.products.problem import Epilogue
from penstock_kernels.gpu.products.table import FASTEST, PRODUCTS, ProductTable
from penstock_kernels.gpu.step.rows import TritonRows
from penstock_kernels.ops import Act, Activation, AttentionSpec, Norm, StepBatch
from penstock_kernels.weight import Weight
from penstock_quantization.online import fp8
from penstock_shard.model.blocks import Block, Sequential
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

HIDDEN, VOCABULARY, LAYERS, PAGE, CONTEXT, ROOM = 4096, 128256, 32, 64, 512, 1024
SPEC = AttentionSpec(32, 8, 128, 128**-0.5)
ALONE = ("_launch_row", "_launch_added_row", "_launch_gated_raw")  # of one row
LAUNCHED = ProductTable(
    [
        product
        for product in PRODUCTS
        if product.launch.__name__ not in ALONE and product.launch.__module__ != one_row.__name__
    ],
    FASTEST.quantises,
)


def random_weight(form: str, n: int, k: int) -> Weight:
    if form == "int4":
        return int4_variants.random_weight(n, k)
    if form in ("bf16", "fp8"):
        weight = Weight(torch.randn(n, k, device="cuda").bfloat16().mul_(k**-0.5))
        return weight if form == "bf16" else fp8(weight, lambda largest: largest)
    return row_variants.random_weight(form, n, k)


def decoder(form: str) -> Decoder:
    group = Group()
    half = partial(torch.randn, VOCABULARY, HIDDEN, device="cuda", dtype=torch.bfloat16)

    def norm() -> Norm:
        return Norm(torch.ones(HIDDEN, device="cuda", dtype=torch.bfloat16), 1e-5)

    def block() -> Block:
        qkv, o, up, down = (random_weight(form, n, k) for n, k, _ in SHAPES.values())
        attention = Attention(SPEC, qkv, None, RowParallel(o, group))
        mlp = Mlp(up, RowParallel(down, group), Act.SILU, True)
        return Sequential(norm(), attention, norm(), mlp)

    head = VocabularyHead(Weight(half().mul_(HIDDEN**-0.5)), VOCABULARY, group)
    rope = Rope(kind="default", theta=500000.0, original_positions=8192)
    blocks = [block() for _ in range(LAYERS)]
    return Decoder(
        VocabularyEmbedding(half(), 0, group), blocks, norm(), head, ((rope, SPEC.width),)
    )


class Step:
    """A decode step, as the shard captures it."""

    def __init__(self, model: Decoder, products: ProductTable) -> None:
        whole, half = (
            partial(torch.full, device="cuda", dtype=t) for t in (torch.int64, torch.bfloat16)
        )
        blocks = ROOM // PAGE
        shape = (len(model.blocks), 2, SPEC.kv_heads, blocks + 1, PAGE, SPEC.width)
        self.cache = half(shape, 0.0)
        self.table = torch.arange(1, 1 + 2 * blocks, device="cuda", dtype=torch.int32).view(2, -1)
        self.slot, self.last, self.lengths = whole((1,), 0), whole((2,), 7), whole((2,), CONTEXT)
        self.kept, self.token = half((1, VOCABULARY), 0.0), whole((1,), 0)
        ropes = model.rope_tables(ROOM, self.cache.device)
        self.device = TritonDevice(model.specs(), ropes, 1, self.cache, True)
        self.device.products, self.model = products, model

    def __call__(self, i: int = 0) -> None:
        device = self.device
        token, position = device.read_slots(self.slot, self.last, self.lengths, None)
        step = device.step(StepBatch(self.slot, position, self.table, 1))
        hidden = self.model.forward(step, token, position, self.cache)
        logits = self.model.head(hidden, step)
        assert logits is not None
        device.argmax_into(logits, self.kept, self.token)
        device.advance_slots(self.slot, position, None, self.token, self.last, self.lengths)


def product(name: str, weights: list[Weight], products: ProductTable, raw: bool) -> float:
    """Microseconds of a product. raw: it normalises, or o and down add to the residual."""
    _, k, gated = SHAPES[name]
    adds = name in ("o", "down")
    x = torch.randn(1, k, device="cuda").bfloat16()
    norm = Norm(torch.ones_like(x[0]), 1e-5)
    rows = Activation(x, norm=norm if raw and not adds else None)
    step, residual = TritonRows(True, products), x.new_zeros(1, weights[0].n)
    ways: dict[bool, Callable[[Weight], object]] = {
        True: lambda weight: step.gated(rows, weight, Act.SILU),
        False: lambda weight: step.linear(rows, weight),
    }
    run = ways[gated]
    if adds and raw:
        run = lambda weight: step.linear_add_norm(rows, weight, residual, None)  # noqa: E731
    elif adds and (parts := products.find(Epilogue.PARTIAL, rows, weights[0])):
        run = lambda weight: parts(rows, weight, True)  # noqa: E731
    return microseconds(lambda i: run(weights[i % len(weights)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=("int4", "nf4", "int8", "fp8"), default="int4")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, object] = {"gpu": torch.cuda.get_device_name()}
    model = decoder(arguments.format)
    tables = {"launched": LAUNCHED, "within products": FASTEST}
    with compile_only():
        for table in tables.values():
            Step(model.for_compiling(), table)()
    for name, (n, k, _) in SHAPES.items():
        count = max(2, (1 << 28) // (n * k // 2))
        weights = [random_weight(arguments.format, n, k) for _ in range(count)]
        us = [product(name, weights, table, table is FASTEST) for table in tables.values()]
        print(f"{name:8} {us[0]:6.1f} us, {us[1]:6.1f} with its norm or sum", flush=True)
        results[name] = us
    logits: list[Tensor] = []
    for way, table in tables.items():
        step = Step(model, table)
        step()
        logits.append(step.kept.clone())
        us_step = microseconds(step, 2, 40)
        print(f"step, norms {way}: {us_step:.0f} us, {difference(logits[-1], logits[0]):.0e}")
        results[way] = us_step
    if arguments.out:
        arguments.out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
