"""Decode steps of one row, by Triton's interpreter: no launch for norms by root mean squares, and
the tokens and logits of steps that have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock_kernels.weight import Layout, Weight
from penstock_shard.model.blocks import Block
from support.checkpoints import FAMILIES, make_checkpoint
from support.local_shard import LocalShard, interpret, load_model
from support.weights import weight_of

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning:triton"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]
FORMATS = [Layout.DENSE, Layout.FP8, Layout.INT8]
# Launches of a step of two blocks that are norms: all of Gemma 2, behind a sum that is no
# product's; those around experts; all of GPT-NeoX, which are not by squares.
FEW = {"llama3": 0, "gemma2": 8, "qwen2_moe": 2, "gpt_neox": 5}
CASES = [
    pytest.param(
        family, layout,
        marks=() if family in FEW and (family == "llama3" or layout is Layout.DENSE) else
        pytest.mark.full,
    )
    for family in FAMILIES
    for layout in FORMATS
]  # fmt: skip


def in_layout(block: Block, layout: Layout) -> None:
    """Its matrices, as a device has them."""

    def of(weight: Weight) -> Weight:
        return weight_of(layout, weight.n, weight.k, weight.data.dtype, weight.bias, "cpu")

    block.attention.qkv = of(block.attention.qkv)
    block.attention.output.weight = of(block.attention.output.weight)
    if hasattr(block.mlp, "up"):
        block.mlp.up, block.mlp.down.weight = of(block.mlp.up), of(block.mlp.down.weight)


@pytest.mark.parametrize(("family", "layout"), CASES)
def test_tokens_are_those_of_launched_norms(
    tmp_path: Path, family: str, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernels.test_one_row import TABLE
    from penstock_kernels.gpu.products import raw_row
    from penstock_kernels.gpu.products.table import PRODUCTS, ProductTable
    from penstock_kernels.gpu.step import rows

    monkeypatch.setattr(raw_row, "multiprocessors", lambda device: 2)
    torch.manual_seed(0)
    loaded = load_model(make_checkpoint(tmp_path / "model", family, num_hidden_layers=2))
    for block in loaded.decoder.blocks:
        in_layout(block, layout)
    launched: list[str] = []
    for name in ("normalise", "add_norm"):
        monkeypatch.setattr(rows, name, counted(getattr(rows, name), name, launched))
    found = []
    for fused in (False, True):
        shard = interpret(LocalShard(loaded), loaded, (1,))
        if fused:
            one_row = TABLE._products
            products = ProductTable((*one_row, *PRODUCTS), TABLE.quantises)
            shard.runner.ops.products = products
        first = shard.start(0, list(range(3, 12)))
        launched.clear()
        found.append([first, *shard.decode([0], 1)[0]])
    assert found[0] == found[1]
    if family in FEW:
        assert len(launched) == FEW[family]


def counted(function: Callable[..., Any], name: str, launched: list[str]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        launched.append(name)
        return function(*arguments)

    return call
