"""Checkpoints of 4-bit codes, and MXFP8, written from dense ones in every format that is read.

quantise_checkpoint(folder, "nf4", twin)     folder is quantised; twin holds the numbers it means
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

from penstock_kernels.lut import TABLES

TABLE_NAMES = (
    "embed",
    "lm_head",
    "wte",
    "wpe",
    "gate.weight",
)  # parts of names of what is never quantised
Tensors = dict[str, Tensor]
Write = Callable[[str, Tensor], tuple[Tensors, Tensor]]  # name and matrix to tensors and meaning


class Format(NamedTuple):
    """How a checkpoint is written."""

    config: dict[str, Any]
    write: Write
    skipped: str | None = None  # part of the names of matrices that are left as they were


def codes_of(x: Tensor, code: str) -> Tensor:
    """By the definition: the nearest of all sixteen."""
    return (x[..., None] - torch.tensor(TABLES[code])).abs().argmin(-1).to(torch.uint8)


def values_of(codes: Tensor, code: str) -> Tensor:
    return torch.tensor(TABLES[code])[codes.long()]


def bitsandbytes(code: str, nested: bool) -> Write:
    def write(name: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        blocks = weight.flatten().view(-1, 64)
        absmax = blocks.abs().amax(1)
        codes = codes_of(blocks / absmax[:, None], code).flatten()
        state = {
            "quant_type": code, "blocksize": 64, "dtype": "float32", "shape": list(weight.shape),
        }  # fmt: skip
        name = f"{name}.weight"
        found = {
            name: (codes[::2] << 4 | codes[1::2])[:, None],
            f"{name}.absmax": absmax,
            f"{name}.quant_map": torch.tensor(TABLES[code]),
        }
        if nested:
            offset = float(absmax.mean())
            groups = (absmax - offset).split(256)
            scale = torch.stack([group.abs().max() for group in groups])
            table = torch.linspace(-1, 1, 256)
            wide = scale.repeat_interleave(256)[: len(absmax)]
            chosen = ((absmax - offset) / wide)[:, None].sub(table).abs().argmin(1)
            found[f"{name}.absmax"] = chosen.to(torch.uint8)
            found[f"{name}.nested_absmax"] = scale
            found[f"{name}.nested_quant_map"] = table
            state |= {
                "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset,
            }  # fmt: skip
            absmax = table[chosen] * wide + offset
        data = json.dumps(state).encode()
        found[f"{name}.quant_state.bitsandbytes__{code}"] = torch.tensor(list(data)).byte()
        values = values_of(codes, code).view(-1, 64) * absmax[:, None]
        return found, values.view(weight.shape)

    return write


def low_first(codes: Tensor) -> Tensor:
    return codes[:, ::2] | codes[:, 1::2] << 4


def powers_of_two(weight: Tensor, group: int, most: float) -> Tensor:
    """As exponents, [n, groups] uint8."""
    largest = weight.view(len(weight), -1, group).abs().amax(2) / most
    return (largest.log2().ceil() + 127).to(torch.uint8)


def mxfp4(data: str, scale: str, blocked: bool = False) -> Write:
    def write(name: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        exponents = powers_of_two(weight, 32, 6.0)
        wide = (exponents.float() - 127).exp2().repeat_interleave(32, 1)
        codes = codes_of(weight / wide, "e2m1")
        packed = low_first(codes)
        if blocked:
            packed = packed.view(len(packed), -1, 16)
        found = {name + data: packed, name + scale: exponents}
        return found, values_of(codes, "e2m1") * wide

    return write


def nvfp4(data: str, whole: str, divides: bool) -> Write:
    def write(name: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        largest = weight.view(len(weight), -1, 16).abs().amax(2) / 6
        by = largest.max() / 448
        stored = (1 / by if divides else by).view(1)
        by = 1 / stored if divides else stored
        scale = (largest / by).to(torch.float8_e4m3fn)
        wide = scale.float().repeat_interleave(16, 1)
        codes = codes_of(weight / (wide * by).clamp(min=1e-30), "e2m1")
        found = {
            name + data: low_first(codes),
            f"{name}.weight_scale": scale,
            name + whole: stored,
            f"{name}.input_global_scale" if divides else f"{name}.input_scale": torch.ones(1),
        }
        return found, values_of(codes, "e2m1") * wide * by

    return write


def mxfp8(name: str, weight: Tensor) -> tuple[Tensors, Tensor]:
    exponents = powers_of_two(weight, 32, 448.0)
    wide = (exponents.float() - 127).exp2().repeat_interleave(32, 1)
    numbers = (weight / wide).to(torch.float8_e4m3fn)
    return {f"{name}.weight": numbers, f"{name}.weight_scale": exponents}, numbers.float() * wide


def squeezellm(bits: int) -> Write:
    def write(name: str, weight: Tensor) -> tuple[Tensors, Tensor]:
        """Tables of evenly spread numbers, and a bit string for each output."""
        low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        table = low + (high - low) * torch.linspace(0, 1, 1 << bits) ** 1.5
        codes = (weight[:, :, None] - table[:, None]).abs().argmin(2)
        words = []
        for row in codes.tolist():
            number = sum(value << bits * place for place, value in enumerate(row))
            count = len(row) * bits // 32
            words.append([(number >> 32 * word) & 0xFFFFFFFF for word in range(count)])
        signed = torch.tensor(words).sub(1 << 32).where(torch.tensor(words) >= 1 << 31, 0)
        packed = signed + torch.tensor(words).where(torch.tensor(words) < 1 << 31, 0)
        found = {f"{name}.qweight": packed.T.int().contiguous(), f"{name}.lookup_table": table}
        return found, table.gather(1, codes)

    return write


def _compressed(name: str, **weights: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": name,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }


def _bnb(code: str, nested: bool = False) -> dict[str, Any]:
    return {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": code,
        "bnb_4bit_use_double_quant": nested, "bnb_4bit_quant_storage": "uint8",
    }  # fmt: skip


FORMATS = {
    "nf4": Format(_bnb("nf4"), bitsandbytes("nf4", False)),
    "nf4-nested": Format(_bnb("nf4", True), bitsandbytes("nf4", True)),
    "fp4": Format(_bnb("fp4"), bitsandbytes("fp4", False)),
    "nf4-some": Format(
        _bnb("nf4") | {"llm_int8_skip_modules": ["v_proj", "up_proj"]},
        bitsandbytes("nf4", False), "v_proj",
    ),
    "nvfp4": Format(
        _compressed(
            "nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group",
            group_size=16, symmetric=True, dynamic=False,
        ),
        nvfp4(".weight_packed", ".weight_global_scale", True),
    ),
    "mxfp4": Format(
        _compressed(
            "mxfp4-pack-quantized", num_bits=4, type="float", strategy="group", group_size=32
        ),
        mxfp4(".weight_packed", ".weight_scale"),
    ),
    "mxfp8": Format(
        _compressed("mxfp8-quantized", num_bits=8, type="float", strategy="group", group_size=32),
        mxfp8,
    ),
    "modelopt": Format(
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "*.up_proj*"]},
        nvfp4(".weight", ".weight_scale_2", False), "up_proj",
    ),
    "openai-mxfp4": Format(
        {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
        mxfp4("_blocks", "_scales", blocked=True),
    ),
    "squeezellm-4": Format({"quant_method": "squeezellm", "wbits": 4}, squeezellm(4)),
    "squeezellm-3": Format({"quant_method": "squeezellm", "wbits": 3}, squeezellm(3)),
}  # fmt: skip


def quantise_checkpoint(folder: Path, name: str, twin: Path) -> None:
    """In place; twin: a folder that is made."""
    shutil.copytree(folder, twin)
    chosen, path = FORMATS[name], folder / "model.safetensors"
    tensors: Tensors = {}
    dense: Tensors = {}
    for key, tensor in load_file(path).items():
        table = any(part in key for part in TABLE_NAMES)
        skipped = chosen.skipped is not None and chosen.skipped in key
        if tensor.dim() != 2 or table or skipped:
            tensors[key] = dense[key] = tensor
            continue
        found, dense[key] = chosen.write(key.removesuffix(".weight"), tensor.float())
        tensors |= {name: part.contiguous() for name, part in found.items()}
    assert any(tensor.dtype in (torch.uint8, torch.int32) for tensor in tensors.values())
    save_file(tensors, path, {"format": "pt"})
    save_file({k: v.contiguous() for k, v in dense.items()}, twin / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": chosen.config}))
