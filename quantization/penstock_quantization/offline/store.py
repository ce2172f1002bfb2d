"""Quantised matrices as checkpoints hold them, and what their configurations say.

A format is a row of FORMATS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penstock_kernels.fp8 import quantise, scale_of
from penstock_kernels.lut import nearest
from penstock_quantization.offline.groups import Grid, Quantised

WORD = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight outputs stand where in a word
Tensors = dict[str, Tensor]  # by what is behind the name of a matrix


@dataclass(frozen=True, slots=True)
class Format:
    """How matrices are stored. Either each by itself (`write`), or by calibration (`store`)."""

    config: Callable[[Grid, list[str]], dict[str, Any]]  # list: matrices that are left as they are
    write: Callable[[Tensor], Tensors] | None = None  # of [n, k]
    store: Callable[[Quantised], Tensors] | None = None
    bits: tuple[int, ...] = (8,)
    symmetric: bool = True


def words(numbers: Tensor, bits: int) -> Tensor:
    """Along the last dimension, low bits first: [..., count * bits / 32] int32."""
    per = WORD // bits
    shifts = torch.arange(0, WORD, bits, device=numbers.device)
    *outer, count = numbers.shape
    found = (numbers.long().reshape(*outer, count // per, per) << shifts).sum(-1)
    return torch.where(found >= 1 << 31, found - (1 << 32), found).int()


def _fp8(weight: Tensor) -> Tensors:
    scale = scale_of(weight.abs().amax(1, keepdim=True).float())
    return {"weight": quantise(weight, scale), "weight_scale": scale}


def _int8(weight: Tensor) -> Tensors:
    scale = (weight.abs().amax(1, keepdim=True).float() / 127).clamp(min=1e-12)
    q = (weight.float() / scale).round().clamp(-127, 127)
    return {"weight": q.to(torch.int8), "weight_scale": scale}


def _fp4(weight: Tensor, scale: Tensor) -> Tensor:
    """scale: [n, groups], of all kinds."""
    codes = nearest(_parts(weight, scale.shape[1]) / scale[..., None].clamp(min=1e-30), "e2m1")
    codes = codes.flatten(1)
    return codes[:, ::2] | codes[:, 1::2] << 4


def _parts(weight: Tensor, groups: int) -> Tensor:
    return weight.float().view(len(weight), groups, -1)


def _nvfp4(weight: Tensor) -> Tensors:
    """The tensor's scale divides."""
    largest = _parts(weight, _groups(weight, 16)).abs().amax(2)
    whole = (448 * 6 / largest.max().clamp(min=1e-12)).view(1)
    scale = (largest / 6 * whole).to(torch.float8_e4m3fn)
    return {
        "weight_packed": _fp4(weight, scale.float() / whole),
        "weight_scale": scale,
        "weight_global_scale": whole,
    }


def _mxfp4(weight: Tensor) -> Tensors:
    """Scales are powers of two, as the OCP specification of microscaling formats has them."""
    largest = _parts(weight, _groups(weight, 32)).abs().amax(2)
    power = largest.clamp(min=2.0**-120).log2().floor() - 2  # the largest number is 6, 2^2 and more
    packed = _fp4(weight, power.exp2())
    return {"weight_packed": packed, "weight_scale": (power + 127).to(torch.uint8)}


def _groups(weight: Tensor, group: int) -> int:
    if weight.shape[1] % group:
        raise ValueError(f"matrices of {weight.shape[1]} inputs have no blocks of {group}")
    return weight.shape[1] // group


def _gptq(matrix: Quantised) -> Tensors:
    """Version 1: zeros are stored minus 1."""
    k, groups = matrix.q.shape[1], matrix.scale.shape[1]
    return {
        "qweight": words(matrix.q, matrix.bits).T.contiguous(),
        "qzeros": words(matrix.zero.T - 1, matrix.bits),
        "scales": matrix.scale.T.contiguous(),
        "g_idx": (torch.arange(k) // (k // groups)).int(),
    }


def _awq(matrix: Quantised) -> Tensors:
    def packed(x: Tensor) -> Tensor:
        eights = x.reshape(len(x), -1, 8)[..., AWQ_ORDER]
        return words(eights.flatten(1), matrix.bits)

    return {
        "qweight": packed(matrix.q.T),
        "qzeros": packed(matrix.zero.T),
        "scales": matrix.scale.T.contiguous(),
    }


def _compressed_fp4(name: str, **weights: Any) -> Callable[[Grid, list[str]], dict[str, Any]]:
    """Rows of activations keep their precision."""

    def config(grid: Grid, skipped: list[str]) -> dict[str, Any]:
        own = {"num_bits": 4, "type": "float", "symmetric": True, "dynamic": False, **weights}
        return {
            "quant_method": "compressed-tensors",
            "format": name,
            "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": own}},
            "ignore": skipped,
        }

    return config


def _compressed(name: str, kind: str) -> Callable[[Grid, list[str]], dict[str, Any]]:
    """Of 8 bits, a scale a row, rows of activations quantised as they come."""

    def config(grid: Grid, skipped: list[str]) -> dict[str, Any]:
        common = {"num_bits": 8, "type": kind, "symmetric": True}
        group = {
            "targets": ["Linear"],
            "weights": common | {"strategy": "channel", "dynamic": False},
            "input_activations": common | {"strategy": "token", "dynamic": True},
        }
        return {
            "quant_method": "compressed-tensors",
            "format": name,
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": skipped,
        }

    return config


def _gptq_config(grid: Grid, skipped: list[str]) -> dict[str, Any]:
    """`dynamic` is GPTQModel's: what no rule of it would quantise."""
    return {
        "quant_method": "gptq",
        "bits": grid.bits,
        "group_size": grid.group,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
        "checkpoint_format": "gptq",
        "dynamic": {f"-:{re.escape(name)}$": {} for name in skipped},
        "modules_to_not_convert": skipped,
    }


def _awq_config(grid: Grid, skipped: list[str]) -> dict[str, Any]:
    return {
        "quant_method": "awq",
        "bits": grid.bits,
        "group_size": grid.group,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": skipped,
    }


FORMATS: dict[str, Format] = {
    "fp8": Format(_compressed("float-quantized", "float"), write=_fp8),
    "int8": Format(_compressed("int-quantized", "int"), write=_int8),
    "nvfp4": Format(
        _compressed_fp4("nvfp4-pack-quantized", strategy="tensor_group", group_size=16),
        write=_nvfp4,
        bits=(4,),
    ),
    "mxfp4": Format(
        _compressed_fp4("mxfp4-pack-quantized", strategy="group", group_size=32),
        write=_mxfp4,
        bits=(4,),
    ),
    "gptq": Format(_gptq_config, store=_gptq, bits=(4, 8)),
    "awq": Format(_awq_config, store=_awq, bits=(4,), symmetric=False),
}
