"""Checkpoints of gpt-oss whose experts are in MXFP4, and dense ones of the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock_kernels.lut import TABLES, nearest

GROUP, BIAS = 32, 127
LARGEST = 6.0


def blocks_of(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x: [experts, outputs, inputs]. Its blocks [experts, outputs, inputs / 32, 16], their scales
    as exponents, and the numbers that both mean."""
    groups = x.unflatten(-1, (-1, GROUP))
    power = (groups.abs().amax(-1, keepdim=True) / LARGEST).log2().ceil()
    codes = nearest(groups / power.exp2(), "e2m1")
    numbers = torch.tensor(TABLES["e2m1"])[codes.long()] * power.exp2()
    blocks = codes[..., ::2] | codes[..., 1::2] << 4
    return blocks, (power.squeeze(-1) + BIAS).to(torch.uint8), numbers.flatten(-2)


def quantise_experts(folder: Path, twin: Path) -> None:
    """In place; `twin` becomes a folder of the same numbers in float32."""
    shutil.copytree(folder, twin)
    tensors = load_file(folder / "model.safetensors")
    dense = dict(tensors)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        stored = tensors.pop(name).transpose(1, 2).contiguous()
        blocks, scales, numbers = blocks_of(stored)
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
        dense[name] = numbers.transpose(1, 2).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(dense, twin / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"]
    method = {"quant_method": "mxfp4", "modules_to_not_convert": [*skipped, "lm_head"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": method}))
