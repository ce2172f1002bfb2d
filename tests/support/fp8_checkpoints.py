"""FP8 checkpoints, written from dense ones, in every format that a reader takes.

quantise_checkpoint(folder, "block", twin)     folder becomes FP8; twin holds the numbers it means
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

LARGEST = 448.0
BLOCK = 32  # small, as the checkpoints are
TABLES = ("embed", "lm_head", "wte", "wpe")  # parts of names of what is never quantised
Scales = Callable[[Tensor], Tensor]  # the scales of a matrix


class Format(NamedTuple):
    """How a checkpoint is written."""

    config: dict[str, Any]
    scales: Scales
    name: str = "weight_scale"
    skipped: str | None = None  # part of the names of matrices that are left as they were


def per_tensor(weight: Tensor) -> Tensor:
    return weight.abs().max().view(1) / LARGEST


def per_channel(weight: Tensor) -> Tensor:
    return weight.abs().amax(1, keepdim=True) / LARGEST


def per_block(weight: Tensor) -> Tensor:
    n, k = weight.shape
    rows, columns = -(-n // BLOCK), -(-k // BLOCK)
    padded = torch.zeros(rows * BLOCK, columns * BLOCK)
    padded[:n, :k] = weight.abs()
    return padded.view(rows, BLOCK, columns, BLOCK).amax((1, 3)) / LARGEST


def expanded(scale: Tensor, shape: torch.Size) -> Tensor:
    """One for each number of the matrix."""
    if scale.numel() == 1:
        return scale.view(1, 1).expand(shape)
    if scale.shape == (shape[0], 1):
        return scale.expand(shape)
    tall = scale.repeat_interleave(BLOCK, 0)[: shape[0]]
    return tall.repeat_interleave(BLOCK, 1)[:, : shape[1]]


def _compressed(strategy: str, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True, **more}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }


_FP8 = {"quant_method": "fp8", "fmt": "e4m3"}
FORMATS = {
    "tensor": Format({**_FP8, "activation_scheme": "static"}, per_tensor),
    "block": Format(
        {**_FP8, "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]},
        per_block, "weight_scale_inv",
    ),
    "some": Format(
        {**_FP8, "modules_to_not_convert": ["v_proj"]}, per_tensor, skipped="v_proj"
    ),
    "ct-tensor": Format(_compressed("tensor"), per_tensor),
    "ct-channel": Format(_compressed("channel"), per_channel),
    "ct-block": Format(_compressed("block", block_structure=[BLOCK, BLOCK]), per_block),
    "fbgemm": Format({"quant_method": "fbgemm_fp8"}, per_channel),
}  # fmt: skip


def quantise_checkpoint(folder: Path, name: str, twin: Path) -> None:
    """In place, with static scales of activations beside; twin: a folder that is made."""
    shutil.copytree(folder, twin)
    chosen, path = FORMATS[name], folder / "model.safetensors"
    tensors: dict[str, Tensor] = {}
    dense: dict[str, Tensor] = {}
    for key, tensor in load_file(path).items():
        dense[key] = tensors[key] = tensor
        module = key.removesuffix(".weight")
        table = any(part in key for part in TABLES)
        skipped = chosen.skipped is not None and chosen.skipped in key
        if tensor.dim() != 2 or table or skipped:
            continue
        scale = chosen.scales(tensor.float())
        wide = expanded(scale, tensor.shape)
        tensors[key] = (tensor.float() / wide).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
        tensors[f"{module}.{chosen.name}"] = scale
        tensors[f"{module}.input_scale"] = torch.ones(1)
        dense[key] = tensors[key].float() * wide
    assert any(tensor.dtype == torch.float8_e4m3fn for tensor in tensors.values())
    save_file(tensors, path, {"format": "pt"})
    save_file(dense, twin / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": chosen.config}))
