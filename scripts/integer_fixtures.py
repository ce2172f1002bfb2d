"""Makes tests/shard/integer_fixtures: small matrices as the libraries of each format store them.

    python scripts/integer_fixtures.py        in an environment of its own, on a CPU, with
    torch, transformers, gptqmodel 7.7.0, autoawq 0.2.9 (--no-deps), compressed-tensors 0.20.1,
    bitsandbytes 0.50.2 and torchao 0.18.0

A file holds the tensors of a matrix [64, 128] called `m`, what `quantization_config` would say of
it (metadata), and `expected`: the matrix that the library makes of them again.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FOLDER = Path(__file__).parent.parent / "tests" / "shard" / "integer_fixtures"
N, K = 64, 128
Made = Iterator[tuple[str, dict[str, Any], dict[str, Tensor], Tensor]]


def matrix() -> nn.Linear:
    torch.manual_seed(0)
    linear = nn.Linear(K, N, bias=False)
    nn.init.normal_(linear.weight, std=0.02)
    return linear.requires_grad_(False)


def gptq() -> Made:
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    for name, bits, group, shuffled, version in (
        ("gptq", 4, 32, False, 1), ("gptq-v2", 4, 32, False, 2), ("gptq-act-order", 4, 32, True, 1),
        ("gptq-2-bits", 2, 32, False, 1), ("gptq-3-bits", 3, 32, False, 1),
        ("gptq-8-bits", 8, -1, False, 1),
    ):  # fmt: skip
        linear, size = matrix(), K if group == -1 else group
        group_of = torch.arange(K) // size
        if shuffled:
            group_of = group_of[torch.randperm(K)]
        most = (1 << bits) - 1
        low = torch.stack([linear.weight[:, group_of == g].amin(1) for g in range(K // size)], 1)
        high = torch.stack([linear.weight[:, group_of == g].amax(1) for g in range(K // size)], 1)
        scale = ((high - low) / most).half().float()
        zero = (-low / scale).round().clamp(0, most)
        q = (linear.weight / scale[:, group_of] + zero[:, group_of]).round().clamp(0, most)
        linear.weight.copy_((q - zero[:, group_of]) * scale[:, group_of])
        module = TorchLinear(
            bits=bits, group_size=group, sym=False, desc_act=shuffled, in_features=K,
            out_features=N, bias=False, pack_dtype=torch.int32,
        )  # fmt: skip
        module.pack(linear, scale, zero, group_of.int())
        module.post_init()
        expected = module.dequantize_weight().T.contiguous()
        if version == 1:
            config = QuantizeConfig(bits=bits, group_size=group)
            convert_gptq_v2_to_v1_format_module(module, config)
        names = ("qweight", "qzeros", "scales", "g_idx")
        yield (
            name,
            {
                "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": shuffled,
                "sym": False, "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
            },
            {key: getattr(module, key).contiguous() for key in names},
            expected,
        )  # fmt: skip


def awq() -> Made:
    """AutoAWQ's packer, without its package, which asks for a GPU; its own unpacking in torch."""
    root = Path(next(iter(importlib.util.find_spec("awq").submodule_search_locations)))
    for name in ("awq", "awq.utils", "awq.modules"):
        sys.modules.setdefault(name, types.ModuleType(name)).__path__ = [
            str(root.joinpath(*name.split(".")[1:]))
        ]
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    linear, group = matrix(), 32
    parts = linear.weight.view(N, -1, group)
    low, high = parts.amin(2), parts.amax(2)
    scale = ((high - low) / 15).half().float()
    zero = (-low / scale).round().clamp(0, 15)
    module = WQLinear_GEMM.from_linear(
        linear, 4, group, scales=scale.T.contiguous(), zeros=zero.T.contiguous()
    )
    tensors = {name: getattr(module, name) for name in ("qweight", "qzeros", "scales")}
    expected = dequantize_gemm(module.qweight, module.qzeros, module.scales, 4, group)
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm"}
    yield "awq", config, tensors, expected.T.contiguous()


def compressed() -> Made:
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.utils import calculate_qparams

    for name, bits, fields in (
        ("packed", 4, {"strategy": "group", "group_size": 32}),
        ("packed-asymmetric", 4, {"strategy": "group", "group_size": 32, "symmetric": False}),
        ("packed-8-bits", 8, {"strategy": "channel"}),
        ("int-quantized", 8, {"strategy": "channel"}),
    ):
        weights = QuantizationArgs(num_bits=bits, type="int", **fields)
        inputs = None
        if name == "int-quantized":
            inputs = QuantizationArgs(num_bits=8, type="int", strategy="token", dynamic=True)
        scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
        config = QuantizationConfig(
            config_groups={"group_0": scheme}, quantization_status=QuantizationStatus.INITIALIZED
        )
        model = nn.Module()
        model.m = matrix().bfloat16()
        apply_quantization_config(model, config)
        group = fields.get("group_size", K)
        parts = model.m.weight.view(N, -1, group)
        scale, zero = calculate_qparams(parts.amin(2), parts.amax(2), weights)
        model.m.weight_scale.data.copy_(scale)
        if hasattr(model.m, "weight_zero_point"):
            model.m.weight_zero_point.data.copy_(zero)
        model.m.quantization_status = QuantizationStatus.FROZEN
        compressor = ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        tensors = {key.removeprefix("m."): value for key, value in model.state_dict().items()}
        said = {"quant_method": "compressed-tensors"} | json.loads(config.model_dump_json())
        said["format"] = name if name == "int-quantized" else "pack-quantized"
        compressor.decompress_model(model)
        yield name, said, tensors, model.m.weight.detach().clone()


def by_transformers() -> Made:
    """The down projection of a small Llama."""
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=N, intermediate_size=K, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, vocab_size=64,
        )
    ).bfloat16()  # fmt: skip
    down = "model.layers.0.mlp.down_proj"
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(f"{folder}/dense")
        for name, config in (
            ("bitsandbytes", BitsAndBytesConfig(load_in_8bit=True)),
            ("torchao-int8", TorchAoConfig(Int8WeightOnlyConfig(version=2))),
            ("torchao-fp8", TorchAoConfig(Float8WeightOnlyConfig())),
        ):
            made = LlamaForCausalLM.from_pretrained(
                f"{folder}/dense", quantization_config=config, dtype=torch.bfloat16
            )
            made.save_pretrained(f"{folder}/{name}")
            weight = made.get_submodule(down).weight
            if name == "bitsandbytes":
                expected = weight.CB.float() * weight.SCB.unsqueeze(1) / 127
            else:
                expected = weight.dequantize(torch.float32)
            tensors = {
                key.removeprefix(down + "."): value
                for key, value in load_file(f"{folder}/{name}/model.safetensors").items()
                if key.startswith(down)
            }
            said = json.loads(Path(f"{folder}/{name}/config.json").read_text())
            yield name, said["quantization_config"], tensors, expected


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    makers: tuple[Callable[[], Made], ...] = (gptq, compressed, by_transformers, awq)
    for maker in makers:
        for name, config, tensors, expected in maker():
            path = FOLDER / f"{name}.safetensors"
            named = {f"m.{key}": value.contiguous().clone() for key, value in tensors.items()}
            content = named | {"expected": expected.detach().contiguous().clone()}
            save_file(content, path, {"quantization_config": json.dumps(config)})
            print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
