"""Writes tests/shard/quantised: small matrices as the libraries of their formats store them.

    python -m venv V; V/bin/pip install torch bitsandbytes==0.50.2 compressed-tensors==0.20.0
    V/bin/python tests/support/quantised_fixtures.py

A file holds a layer's tensors under `matrix`, and `expected`: what the library itself makes of
them, in float32. Its metadata says which library that was, and `quantization_config`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bitsandbytes
import compressed_tensors
import torch
from compressed_tensors.compressors.mxfp4.base import MXFP4PackedCompressor
from compressed_tensors.compressors.mxfp8.base import MXFP8QuantizationCompressor
from compressed_tensors.compressors.naive_quantized.base import FloatQuantizationCompressor
from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file
from torch import Tensor

OUT = Path(__file__).parent.parent / "shard" / "quantised"
N, K = 24, 128  # whole blocks a row: of others bitsandbytes 0.50.2 loses the place on a CPU


def matrix(k: int = K) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(N, k) * 0.1


def write(name: str, library: Any, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    metadata = {
        "library": f"{library.__name__} {library.__version__}",
        "quantization_config": json.dumps(config),
    }
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, OUT / name, metadata)


def of_bitsandbytes(name: str, kind: str, nested: bool) -> None:
    layer = bitsandbytes.nn.Linear4bit(K, N, bias=False, compute_dtype=torch.float32)
    layer.weight = bitsandbytes.nn.Params4bit(
        matrix(), requires_grad=False, quant_type=kind, compress_statistics=nested
    )
    layer = layer.to("cpu")
    expected = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    config = {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": nested, "bnb_4bit_quant_storage": "uint8",
    }  # fmt: skip
    tensors = {f"matrix.{key}": tensor for key, tensor in layer.state_dict().items()}
    write(name, bitsandbytes, config, tensors | {"expected": expected.float()})


def of_compressed_tensors(name: str, preset: str, compressor: Any) -> None:
    scheme, weight = preset_name_to_scheme(preset, ["Linear"]), matrix()
    args = scheme.weights
    parts = weight.view(N, -1, args.group_size)
    whole = None
    if args.strategy == "tensor_group":
        whole = generate_gparam(weight.amin().view(1), weight.amax().view(1))
    scale, _ = calculate_qparams(parts.amin(2), parts.amax(2), args, whole)
    state = {"weight": weight, "weight_scale": scale.float()}
    if whole is not None:
        state["weight_global_scale"] = whole
    stored = compressor.compress(state, scheme)
    if "weight_packed" in stored:
        numbers = unpack_fp4_from_uint8(stored["weight_packed"], N, K, dtype=torch.float32)
    else:
        numbers = stored["weight"].float()
    expected = dequantize(numbers, scale.float(), args=args, global_scale=whole)
    config = {
        "quant_method": "compressed-tensors",
        "format": name.removesuffix(".safetensors"),
        "config_groups": {"group_0": scheme.model_dump(mode="json")},
        "ignore": ["lm_head"],
    }
    tensors = {f"matrix.{key}": tensor for key, tensor in stored.items()}
    write(name, compressed_tensors, config, tensors | {"expected": expected.float()})


def of_float8(name: str, preset: str) -> None:
    """Of a scale in all, one a row, or one for 128 x 128 numbers."""
    scheme, weight = preset_name_to_scheme(preset, ["Linear"]), matrix(2 * K)
    args = scheme.weights
    parts = {"tensor": weight.view(1, -1), "channel": weight, "block": weight.view(N, 2, K)}
    part = parts[args.strategy]
    least, most = (part.amin(-1), part.amax(-1))
    if args.strategy == "block":
        least, most = least.amin(0)[None], most.amax(0)[None]
    elif args.strategy == "channel":
        least, most = least[:, None], most[:, None]
    scale, _ = calculate_qparams(least, most, args)
    stored = FloatQuantizationCompressor.compress({"weight": weight, "weight_scale": scale}, scheme)
    expected = FloatQuantizationCompressor.decompress(stored, scheme)["weight"]
    config = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": scheme.model_dump(mode="json")},
        "ignore": ["lm_head"],
    }
    tensors = {f"matrix.{key}": tensor for key, tensor in stored.items()}
    write(name, compressed_tensors, config, tensors | {"expected": expected.float()})


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    of_bitsandbytes("bitsandbytes-nf4.safetensors", "nf4", False)
    of_bitsandbytes("bitsandbytes-nf4-nested.safetensors", "nf4", True)
    of_bitsandbytes("bitsandbytes-fp4.safetensors", "fp4", False)
    of_compressed_tensors("nvfp4-pack-quantized.safetensors", "NVFP4A16", NVFP4PackedCompressor)
    of_compressed_tensors("mxfp4-pack-quantized.safetensors", "MXFP4A16", MXFP4PackedCompressor)
    of_compressed_tensors("mxfp8-quantized.safetensors", "MXFP8A16", MXFP8QuantizationCompressor)
    of_float8("float-quantized-tensor.safetensors", "FP8")
    of_float8("float-quantized-channel.safetensors", "FP8_DYNAMIC")
    of_float8("float-quantized-block.safetensors", "FP8_BLOCK")
