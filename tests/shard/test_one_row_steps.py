"""Decode steps of one row whose norms are part of products have the tokens of those whose norms are
launched, and none of the launches. By Triton's interpreter."""

from __future__ import annotations

import itertools
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
FORMATS = [Layout.DENSE, Layout.FP8, Layout.INT4]
# Launches of a step of two blocks that are norms: all of Gemma 2, behind a sum that is no
# product's; those around experts; all of GPT-NeoX, which are not by squares.
FEW = {"llama3": 0, "gemma2": 8, "qwen2_moe": 2, "gpt_neox": 5}
WHOLE = {"smollm3", "exaone4_all", "gpt_neo"}  # whose config says something of each layer
QUICK = [("gemma2", Layout.DENSE), ("llama3", Layout.INT4)]
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.full)
    for case in itertools.product(FAMILIES, FORMATS)
]


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
    from penstock_kernels.gpu.step import rows

    torch.manual_seed(0)
    layers = {} if family in WHOLE else {"num_hidden_layers": 2}
    loaded = load_model(make_checkpoint(tmp_path / "model", family, **layers))
    for block in loaded.decoder.blocks:
        in_layout(block, layout)
    launched: list[str] = []
    for name in ("normalise", "add_norm"):
        monkeypatch.setattr(rows, name, counted(getattr(rows, name), name, launched))
    found = []
    for fused in (False, True):
        shard = interpret(LocalShard(loaded), loaded, (1,))
        if fused:
            shard.runner.ops.products = TABLE
        first = shard.start(0, [3, 4, 5])
        launched.clear()
        found.append([first, *shard.decode([0], 1)[0]])
    assert found[0] == found[1]
    if family in FEW:
        assert len(launched) == FEW[family]


def counted(function: Callable[..., Any], name: str, launched: list[str]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        launched.append(name)
        return function(*arguments, **named)

    return call
