"""Checkpoints in whole numbers, written from dense ones, in every format that a reader takes.

quantise_checkpoint(folder, "gptq", twin)     folder becomes GPTQ; twin holds the numbers it means
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TABLES = (
    "embed",
    "lm_head",
    "wte",
    "wpe",
    "gate.weight",
)  # parts of names of what is never quantised
BY_INPUT = (".c_attn.", ".c_proj.", ".c_fc.")  # stored [inputs, outputs]
GROUP = 16
Tensors = dict[str, Tensor]


class Numbers(NamedTuple):
    """A matrix [n, k]: (q - zero) * scale, with unsigned q and zero."""

    bits: int
    q: Tensor  # [n, k]
    scale: Tensor  # [n, groups] float16
    zero: Tensor  # [n, groups]
    group_of: Tensor  # [k]

    def meant(self) -> Tensor:
        scale, zero = self.scale[:, self.group_of], self.zero[:, self.group_of]
        return (self.q - zero).float() * scale.float()


def quantised(weight: Tensor, bits: int, group: int, symmetric: bool, shuffled: bool) -> Numbers:
    """To the nearest, in groups of the inputs as they stand or are shuffled."""
    n, k = weight.shape
    group = k if group == -1 else group
    group_of = torch.arange(k) // group
    if shuffled:  # the same for all matrices of one input
        group_of = group_of[torch.randperm(k, generator=torch.Generator().manual_seed(k))]
    groups, most = -(-k // group), (1 << bits) - 1
    low, high = (torch.zeros(n, groups) for _ in range(2))
    index = group_of.expand(n, k)
    low.scatter_reduce_(1, index, weight, "amin")
    high.scatter_reduce_(1, index, weight, "amax")
    if symmetric:
        largest = torch.maximum(-low, high)
        scale = (2 * largest / most).clamp(min=1e-4).half()
        zero = torch.full((n, groups), (most + 1) // 2)
    else:
        scale = ((high - low) / most).clamp(min=1e-4).half()
        zero = (-low / scale).round().clamp(0, most).long()
        zero[::3, ::2] = 0  # which version 1 of GPTQ borrows for
    wide, at = scale.float()[:, group_of], zero[:, group_of]
    q = (weight / wide + at).round().clamp(0, most).long()
    return Numbers(bits, q, scale, zero, group_of)


def words(numbers: Tensor, bits: int) -> Tensor:
    """Along the last dimension, low bits first, without gaps: [..., w] int32."""
    *outer, count = numbers.shape
    bit = torch.arange(bits)
    stream = (numbers.unsqueeze(-1) >> bit & 1).reshape(*outer, count * bits)
    stream = torch.nn.functional.pad(stream, (0, -count * bits % 32)).view(*outer, -1, 32)
    found = (stream << torch.arange(32)).sum(-1)
    return torch.where(found >= 1 << 31, found - (1 << 32), found).int()


def gptq(offset: int, numbers: Numbers) -> Tensors:
    bits = numbers.bits
    if 32 % bits:
        zeros = words((numbers.zero.T - offset) & ((1 << bits) - 1), bits)
    else:  # as GPTQModel does it: whole words, so that a zero of 0 borrows
        ones = sum(1 << shift for shift in range(0, 32, bits))
        zeros = words(numbers.zero.T, bits) - offset * ones
    return {
        "qweight": words(numbers.q, bits).T,
        "qzeros": zeros,
        "scales": numbers.scale.T,
        "g_idx": numbers.group_of.int(),
    }


def awq(numbers: Numbers) -> Tensors:
    def packed(x: Tensor) -> Tensor:  # [rows, n]
        eights = x.reshape(len(x), -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]]
        return words(eights.flatten(1), 4)

    scales = numbers.scale.T
    return {"qweight": packed(numbers.q.T), "qzeros": packed(numbers.zero.T), "scales": scales}


def compressed(symmetric: bool, shuffled: bool, numbers: Numbers) -> Tensors:
    found = {
        "weight_packed": words(numbers.q, numbers.bits),
        "weight_scale": numbers.scale,
        "weight_shape": torch.tensor(numbers.q.shape),
    }
    if not symmetric:
        found["weight_zero_point"] = words(numbers.zero.T, numbers.bits).T
    if shuffled:
        found["weight_g_idx"] = numbers.group_of.int()
    return found


def int8(scale: str, factor: float, extra: Tensors, numbers: Numbers) -> Tensors:
    wide = numbers.scale.float() * factor
    if scale == "SCB":
        wide = wide.flatten()
    return {"weight": (numbers.q - 128).to(torch.int8), scale: wide, **extra}


def torchao(numbers: Numbers) -> Tensors:
    return {
        "_weight_qdata": (numbers.q - 128).to(torch.int8),
        "_weight_scale": numbers.scale.float(),
        "_weight_zero_point": torch.zeros(numbers.scale.shape, dtype=torch.int8),
    }


class Format(NamedTuple):
    """How a checkpoint is written."""

    config: dict[str, Any]
    write: Callable[[Numbers], Tensors]
    bits: int = 4
    group: int = GROUP
    symmetric: bool = True
    shuffled: bool = False
    skipped: str | None = None  # part of the names of matrices that are left as they were


def _gptq(bits: int = 4, group: int = GROUP, version: int = 1, **more: Any) -> Format:
    config = {
        "quant_method": "gptq", "bits": bits, "group_size": group,
        "desc_act": more.get("shuffled", False), "sym": more.get("symmetric", True),
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
    }  # fmt: skip
    write = partial(gptq, 2 - version)
    return Format(config, write, bits, group, **more)


def _packed(bits: int, group: int, **more: Any) -> Format:
    symmetric, shuffled = more.get("symmetric", True), more.get("shuffled", False)
    weights = {
        "num_bits": bits, "type": "int", "symmetric": symmetric,
        "strategy": "channel" if group == -1 else "group",
        "group_size": None if group == -1 else group, "actorder": "group" if shuffled else None,
    }  # fmt: skip
    config = _compressed("pack-quantized", weights)
    return Format(config, partial(compressed, symmetric, shuffled), bits, group, **more)


def _compressed(name: str, weights: dict[str, Any]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": name,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }


_AWQ = {"quant_method": "awq", "bits": 4, "zero_point": True, "version": "gemm"}
_INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
_AO = {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}}
_BNB = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
FORMATS = {
    "gptq": _gptq(),
    "gptq-v2-asymmetric": _gptq(version=2, symmetric=False),
    "gptq-asymmetric": _gptq(symmetric=False),
    "gptq-act-order": _gptq(shuffled=True, symmetric=False),
    "gptq-whole-rows": _gptq(group=-1),
    "gptq-2-bits": _gptq(2, 32, symmetric=False),
    "gptq-3-bits": _gptq(3, 32),
    "gptq-8-bits": _gptq(8, 32, symmetric=False),
    "gptq-8-bits-act-order": _gptq(8, 32, shuffled=True),
    "gptq-some": _gptq(skipped="v_proj"),
    "awq": Format(_AWQ | {"group_size": GROUP}, awq, symmetric=False),
    "awq-whole-rows": Format(_AWQ | {"group_size": -1}, awq, 4, -1, False),
    "packed": _packed(4, GROUP),
    "packed-asymmetric": _packed(4, 32, symmetric=False),
    "packed-act-order": _packed(4, GROUP, shuffled=True),
    "packed-8-bits": _packed(8, -1),
    "packed-8-bits-groups": _packed(8, 32, symmetric=False),
    "int-quantized": Format(_compressed("int-quantized", _INT8),
                            partial(int8, "weight_scale", 1.0, {}), 8, -1),
    "bitsandbytes": Format(_BNB, partial(int8, "SCB", 127.0,
                                         {"weight_format": torch.tensor(0).byte()}), 8, -1),
    "torchao": Format({"quant_method": "torchao", "quant_type": _AO}, torchao, 8, -1),
}  # fmt: skip


def quantise_checkpoint(folder: Path, name: str, twin: Path) -> None:
    """In place; twin: a folder that is made."""
    shutil.copytree(folder, twin)
    chosen, path = FORMATS[name], folder / "model.safetensors"
    tensors: Tensors = {}
    dense: Tensors = {}
    for key, tensor in load_file(path).items():
        table = any(part in key for part in TABLES)
        skipped = chosen.skipped is not None and chosen.skipped in key
        if tensor.dim() != 2 or table or skipped:
            dense[key] = tensors[key] = tensor
            continue
        module = key.removesuffix(".weight")
        stored = any(part in key for part in BY_INPUT)
        numbers = quantised(
            (tensor.T if stored else tensor).float(),
            chosen.bits,
            chosen.group,
            chosen.symmetric,
            chosen.shuffled,
        )
        written = chosen.write(numbers)
        tensors |= {
            f"{module}.{each}": value.contiguous().clone() for each, value in written.items()
        }
        dense[key] = numbers.meant().T.contiguous() if stored else numbers.meant()
    assert len(tensors) > len(dense)
    save_file(tensors, path, {"format": "pt"})
    save_file(dense, twin / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": chosen.config}))
