"""What config.json says about a model, as the switches that the decoder has.

A family is a row of FAMILIES: adding one that the switches cover is a row and a test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_shard.rope import Rope, parse_rope

Config = Mapping[str, Any]
Windows = tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A decoder: pre-norm, rotary positions, grouped-query attention, gated MLP."""

    name: str  # "LlamaForCausalLM"
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rope: Rope
    max_positions: int  # rope scaling included
    tied_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool  # normalise each head of queries and keys before the rotation
    windows: Windows  # of each layer: tokens a row sees, itself included; None is all
    dtype: str | None  # of the checkpoint, where config.json says it


def _no_window(config: Config, layers: int) -> Windows:
    return (None,) * layers


def _one_window(config: Config, layers: int) -> Windows:
    """Mistral: every layer slides, unless sliding_window is null."""
    if len(set(config.get("layer_types") or ())) > 1:
        raise ValueError("layer_types that differ between layers are not supported in this family")
    return (config.get("sliding_window", 4096),) * layers


def _switched_window(config: Config, layers: int) -> Windows:
    """Qwen: layers slide from max_window_layers on, or as layer_types says, if switched on."""
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window") else None
    first = config.get("max_window_layers", 28)
    kinds = config.get("layer_types") or [
        "sliding_attention" if layer >= first else "full_attention" for layer in range(layers)
    ]
    if len(kinds) != layers:
        raise ValueError(f"layer_types has {len(kinds)} entries for {layers} layers")
    if unknown := set(kinds) - {"sliding_attention", "full_attention"}:
        raise ValueError(f"layer_types {sorted(unknown)} are not supported")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


@dataclass(frozen=True, slots=True)
class Family:
    """Switches of a family. A string names the key of config.json that decides, off by default."""

    qkv_bias: bool | str = False
    output_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: bool = False
    windows: Callable[[Config, int], Windows] = _no_window
    defaults: tuple[tuple[str, int], ...] = ()  # values that config.json may leave out


FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        defaults=(("max_position_embeddings", 2048),),
    ),
    "MistralForCausalLM": Family(
        windows=_one_window,
        defaults=(("max_position_embeddings", 131072), ("num_key_value_heads", 8)),
    ),
    "Qwen2ForCausalLM": Family(
        qkv_bias=True,
        windows=_switched_window,
        defaults=(("max_position_embeddings", 32768),),
    ),
    "Qwen3ForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm=True,
        windows=_switched_window,
        defaults=(("max_position_embeddings", 32768), ("head_dim", 128)),
    ),
}

DTYPE_NAMES = ("float32", "float16", "bfloat16")


def read_architecture(folder: Path) -> Architecture:
    """Parse config.json of a model folder. Raises ValueError that says what is wrong."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder} has no config.json, so it is no model folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a JSON {type(config).__name__}, not an object")
    try:
        return parse_architecture(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def parse_architecture(config: Config) -> Architecture:
    """The switches of a parsed config.json. Raises ValueError for what is not supported."""
    name = (config.get("architectures") or ["(none given)"])[0]
    if name not in FAMILIES:
        supported = ", ".join(FAMILIES)
        raise ValueError(f"architecture {name} is not supported; supported: {supported}")
    family = FAMILIES[name]
    layers = _integer(config, "num_hidden_layers")
    windows = family.windows(config, layers)  # here a null differs from a key that is not there
    config = {**dict(family.defaults), **{k: v for k, v in config.items() if v is not None}}
    _refuse_unsupported(config)
    heads = _integer(config, "num_attention_heads")
    hidden = _integer(config, "hidden_size")
    positions = _integer(config, "max_position_embeddings")
    kv_heads = _integer(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(f"num_attention_heads {heads} is no multiple of {kv_heads} KV heads")
    rope = parse_rope(config, positions)
    return Architecture(
        name=name,
        vocab_size=_integer(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_integer(config, "intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_head_dim(config, hidden, heads),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope=rope,
        max_positions=max(positions, int(rope.original_positions * rope.reach)),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=_switch(config, family.qkv_bias),
        output_bias=_switch(config, family.output_bias),
        mlp_bias=_switch(config, family.mlp_bias),
        qk_norm=family.qk_norm,
        windows=windows,
        dtype=_dtype(config),
    )


def _refuse_unsupported(config: Config) -> None:
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ValueError(f"hidden_act {activation!r} is not supported; supported: silu")
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ValueError(
            f"quantization_config with quant_method {method!r} is not supported; "
            "supported: unquantised float32, float16 and bfloat16 weights"
        )


def _integer(config: Config, key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} must be a positive integer, not {value!r}")
    return value


def _head_dim(config: Config, hidden: int, heads: int) -> int:
    if "head_dim" in config:
        width = _integer(config, "head_dim")
    elif hidden % heads:
        raise ValueError(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    else:
        width = hidden // heads
    if width % 2:
        raise ValueError(f"head_dim {width} is odd, so it cannot be rotated")
    return width


def _switch(config: Config, value: bool | str) -> bool:
    return bool(config.get(value, False)) if isinstance(value, str) else value


def _dtype(config: Config) -> str | None:
    """`dtype`, or `torch_dtype` in older files. Raises ValueError for one we cannot compute in."""
    name: str | None = config.get("dtype", config.get("torch_dtype"))
    if name is not None and name not in DTYPE_NAMES:
        raise ValueError(f"dtype {name!r} is not supported; supported: {', '.join(DTYPE_NAMES)}")
    return name
