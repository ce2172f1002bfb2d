"""Checkpoints of compressed-tensors: what their configuration says.

A format is a row of FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from penstock_quantization import integer_schemes as integers
from penstock_quantization.scheme import Config, Scheme, block, expect, names

Weights = Mapping[str, Any]  # `weights` of a config group


def compressed_tensors(given: Config) -> Scheme:
    """Raises ValueError for what no reader takes."""
    parse = FORMATS[expect(given, "format", tuple(FORMATS))]
    sparsity = given.get("sparsity_config") or {}
    if sparsity.get("format", "dense") != "dense":
        raise ValueError(f"sparsity_config {sparsity['format']!r} is not supported")
    groups = given.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise ValueError("config_groups is missing")
    found = {_fields(parse(_weights(name, group))) for name, group in groups.items()}
    if len(found) > 1:
        raise ValueError("config_groups that differ in strategy are not supported")
    return Scheme(method="compressed-tensors", skipped=names(given, "ignore"), **dict(found.pop()))


def _fields(fields: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(fields.items())


def _weights(name: str, group: Any) -> Weights:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise ValueError(f"config_groups.{name} has no weights")
    return weights


def _kind(weights: Weights, kind: str, bits: int, strategies: tuple[str, ...]) -> str:
    """The strategy."""
    found = weights.get("type"), weights.get("num_bits")
    if found != (kind, bits):
        raise ValueError(f"weights of type {found[0]!r} with {found[1]!r} bits are not supported")
    strategy = weights.get("strategy")
    if strategy not in strategies:
        raise ValueError(f"strategy {strategy!r} is not supported: it is none of this format's")
    return str(strategy)


def _fp8(weights: Weights) -> dict[str, Any]:
    strategy = _kind(weights, "float", 8, ("tensor", "channel", "block"))
    return {
        "format": "fp8",
        "block": block(weights, "block_structure") if strategy == "block" else None,
    }


def _mxfp8(weights: Weights) -> dict[str, Any]:
    _kind(weights, "float", 8, ("group",))
    expect(weights, "group_size", (32,))
    return {"format": "compressed-tensors", "block": (1, 32), "powers": True}


def _fp4(stored: str, group: int, weights: Weights) -> dict[str, Any]:
    _kind(weights, "float", 4, ("tensor_group", "group"))
    expect(weights, "group_size", (group,))
    return {"format": "compressed-tensors", "stored": stored, "code": "e2m1"}


FORMATS: dict[str, Callable[[Weights], dict[str, Any]]] = {
    "float-quantized": _fp8,
    "naive-quantized": _fp8,
    "mxfp8-quantized": _mxfp8,
    "pack-quantized": integers.packed,
    "int-quantized": integers.plain,
    **{
        stored: partial(_fp4, stored, group)
        for stored, group in (("nvfp4-pack-quantized", 16), ("mxfp4-pack-quantized", 32))
    },
}
