"""What `quantization_config` says of checkpoints in whole numbers. No torch: see `scheme`."""

from __future__ import annotations

from typing import Any

from penstock_quantization.scheme import UNREAD, Config, Scheme, expect, names
from penstock_quantization.whole import Whole

GROUPS = (-1, 8, 16, 32, 64, 128, 256, 512, 1024)


def gptq(given: Config) -> Scheme:
    """As AutoGPTQ and GPTQModel write it."""
    version = given.get("checkpoint_format", given.get("format")) or "gptq"
    if given.get("is_marlin_format") or version == "marlin":
        raise ValueError(
            "files that were repacked for Marlin are not read: serve the GPTQ checkpoint that they "
            "were made from, which is repacked when it is loaded"
        )
    expect({"checkpoint_format": version}, "checkpoint_format", ("gptq", "gptq_v2"))
    whole = Whole(
        bits=expect(given, "bits", (4, 2, 3, 8)),
        group=_group_size(given, "group_size"),
        offset=1 if version == "gptq" else 0,
        symmetric=given.get("sym") is True,
    )
    # Some writers put a bias beside every matrix.
    unread = (*UNREAD, ".bias")
    skipped = names(given, "modules_to_not_convert")
    return _scheme("gptq", "gptq", whole, skipped, unread)


def awq(given: Config) -> Scheme:
    """As AutoAWQ writes it, for the product that it calls GEMM."""
    version = str(given.get("version", given.get("format")) or "gemm").lower()
    if version != "gemm":
        raise ValueError(
            f"version {version!r} is not supported, whose numbers stand in another order; "
            "supported: gemm"
        )
    expect(given, "bits" if "bits" in given else "w_bit", (4,))
    group = _group_size(given, "q_group_size" if "q_group_size" in given else "group_size")
    return _scheme("awq", "awq", Whole(4, group), names(given, "modules_to_not_convert"))


def bitsandbytes(given: Config) -> Scheme:
    """LLM.int8. Its activations are not quantised here, which is at least as exact."""
    skipped = names(given, "llm_int8_skip_modules") or ("lm_head",)
    unread = (*UNREAD, ".weight_format")
    return _scheme("bitsandbytes", "bitsandbytes-int8", Whole(symmetric=True), skipped, unread)


def torchao(given: Config) -> Scheme:
    """Weights alone, in whole numbers of 8 bits or in FP8."""
    kinds = given.get("quant_type")
    kind = kinds.get("default") if isinstance(kinds, dict) else kinds
    name = kind.get("_type") if isinstance(kind, dict) else kind
    stored = {
        "Int8WeightOnlyConfig": "torchao-int8",
        "Float8WeightOnlyConfig": "torchao-fp8",
        "int8_weight_only": "torchao-int8",
        "float8_weight_only": "torchao-fp8",
    }
    found = stored[expect({"quant_type": name}, "quant_type", tuple(stored))]
    skipped = names(given, "modules_to_not_convert") or ("lm_head",)
    return _scheme("torchao", found, Whole(), skipped)


def packed(weights: Config) -> dict[str, Any]:
    """What a group of compressed-tensors says of weights that are pack-quantized."""
    bits = expect(weights, "num_bits", (4, 2, 3, 8))
    return _compressed("packed", weights, bits)


def plain(weights: Config) -> dict[str, Any]:
    """Of those that are int-quantized. Activations are not quantised here."""
    expect(weights, "num_bits", (8,))
    return _compressed("int8", weights, 8)


def _compressed(stored: str, weights: Config, bits: int) -> dict[str, Any]:
    expect(weights, "type", ("int",))
    strategy = expect(weights, "strategy", ("tensor", "channel", "group"))
    group = _group_size(weights, "group_size") if strategy == "group" else None
    whole = Whole(bits, group, symmetric=weights.get("symmetric", True) is True)
    unread = (*UNREAD, ".weight_shape", ".input_zero_point")
    format = "compressed-tensors"
    return {"format": format, "stored": stored, "whole": whole, "unread": unread}


def _scheme(
    method: str, stored: str, whole: Whole, skipped: tuple[str, ...],
    unread: tuple[str, ...] = UNREAD,
) -> Scheme:  # fmt: skip
    return Scheme(
        method=method, format=method, stored=stored, whole=whole, bits=whole.bits, skipped=skipped,
        unread=unread,
    )  # fmt: skip


def _group_size(given: Config, key: str) -> int | None:
    found = given.get(key)
    group = expect({key: -1 if found is None else found}, key, GROUPS)
    return None if group == -1 else int(group)
