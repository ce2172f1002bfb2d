"""What `quantization_config` of a config.json says, without torch: the launcher checks it early.

A method is a row of METHODS. The names are those that checkpoints use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
KEYS = ("quantization_config", "compression_config")  # the second in old files


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How the matrices of a checkpoint are stored."""

    method: str  # `quant_method`
    format: str  # what `--quantize` calls it
    scale: str = "weight_scale"  # of a matrix, beside its `weight`
    block: tuple[int, int] | None = None  # rows and columns of a scale; None: a row's or a tensor's
    skipped: tuple[str, ...] = ()  # matrices that are not quantised
    # Tensors beside a matrix that are not read: rows get scales of their own.
    unread: tuple[str, ...] = (".input_scale", ".input_scale_ub", ".k_scale", ".v_scale")

    def skips(self, name: str) -> bool:
        """Whether a matrix, such as model.layers.0.mlp.down_proj, is left as it was.

        Lists name matrices, modules that hold them, last parts of names, or expressions (re:…).
        """
        return any(_names(entry, name) for entry in self.skipped)


def parse_scheme(config: Config) -> Scheme | None:
    """Of a parsed config.json; None where nothing is quantised.

    Raises ValueError that names the method, for what cannot be read.
    """
    key = next((key for key in KEYS if config.get(key)), None)
    if key is None:
        return None
    given = config[key]
    method = given.get("quant_method") if isinstance(given, dict) else None
    parse = METHODS.get(method) if isinstance(method, str) else None
    if parse is None:
        raise ValueError(
            f"{key} with quant_method {method!r} is not supported; supported: {', '.join(METHODS)}"
        )
    try:
        return parse(given)
    except ValueError as error:
        raise ValueError(f"{key} with quant_method {method!r}: {error}") from None


def check_quantize(quantize: str | None, scheme: Scheme | None) -> None:
    """Raises ValueError where `--quantize` contradicts what the checkpoint is."""
    if scheme is None or quantize in (None, scheme.format):
        return
    raise ValueError(
        f"--quantize {quantize} contradicts quantization_config with quant_method "
        f"{scheme.method!r}: the checkpoint is {scheme.format} already; leave --quantize out"
    )


def _fp8(given: Config) -> Scheme:
    """As vLLM's AutoFP8 writes it, or with blocks as DeepSeek does."""
    _expect(given, "fmt", ("e4m3", "float8_e4m3fn"))
    _expect(given, "activation_scheme", ("dynamic", "static"))
    skipped = _list(given, "modules_to_not_convert") + _list(given, "ignored_layers")
    block = _block(given, "weight_block_size")
    scale = "weight_scale" if block is None else "weight_scale_inv"
    return Scheme(method="fp8", format="fp8", scale=scale, block=block, skipped=skipped)


def _fbgemm(given: Config) -> Scheme:
    skipped = _list(given, "modules_to_not_convert")
    return Scheme(method="fbgemm_fp8", format="fp8", skipped=skipped)


def _compressed_tensors(given: Config) -> Scheme:
    _expect(given, "format", ("float-quantized", "naive-quantized"))
    sparsity = given.get("sparsity_config") or {}
    if sparsity.get("format", "dense") != "dense":
        raise ValueError(f"sparsity_config {sparsity['format']!r} is not supported")
    groups = given.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise ValueError("config_groups is missing")
    blocks = {_group(name, group) for name, group in groups.items()}
    if len(blocks) > 1:
        raise ValueError("config_groups that differ in strategy are not supported")
    skipped = _list(given, "ignore")
    return Scheme(method="compressed-tensors", format="fp8", block=blocks.pop(), skipped=skipped)


def _group(name: str, group: Any) -> tuple[int, int] | None:
    """Its blocks."""
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise ValueError(f"config_groups.{name} has no weights")
    kind, bits = weights.get("type"), weights.get("num_bits")
    if (kind, bits) != ("float", 8):
        raise ValueError(f"weights of type {kind!r} with {bits!r} bits are not supported")
    strategy = weights.get("strategy")
    if strategy not in ("tensor", "channel", "block"):
        raise ValueError(f"strategy {strategy!r} is not supported: it is none of FP8's")
    return _block(weights, "block_structure") if strategy == "block" else None


METHODS: dict[str, Callable[[Config], Scheme]] = {
    "fp8": _fp8,
    "compressed-tensors": _compressed_tensors,
    "fbgemm_fp8": _fbgemm,
}


def _expect(given: Config, key: str, supported: tuple[str, ...]) -> None:
    value = given.get(key, supported[0])
    if value not in supported:
        raise ValueError(f"{key} {value!r} is not supported; supported: {', '.join(supported)}")


def _block(given: Config, key: str) -> tuple[int, int] | None:
    block = given.get(key)
    if isinstance(block, str) and re.fullmatch(r"\d{1,5}x\d{1,5}", block):
        block = [int(side) for side in block.split("x")]
    if block is None:
        return None
    sizes = isinstance(block, list) and [type(side) for side in block] == [int, int]
    if not sizes or not all(16 <= side <= 1 << 16 and side % 16 == 0 for side in block):
        raise ValueError(f"{key} {block!r} is not supported; supported: two multiples of 16")
    return block[0], block[1]


def _list(given: Config, key: str) -> tuple[str, ...]:
    names = given.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key} must be a list of names")
    return tuple(names)


def _names(entry: str, name: str) -> bool:
    if entry.startswith("re:"):
        try:
            return re.match(entry.removeprefix("re:"), name) is not None
        except re.error:
            return False
    return f".{entry}." in f".{name}."
