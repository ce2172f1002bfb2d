"""What config.json says about a model, as the switches that the decoder has.

A family is a row of FAMILIES: adding one that the switches cover is a row and a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_shard.config_numbers import real, whole
from penstock_shard.json_file import read_object
from penstock_shard.rope_config import Rope, parse_rope

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

    @property
    def parameters(self) -> int:
        """How many there are, less the few of biases and norms of heads."""
        attention = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim
        layer = self.hidden_size * (attention + 3 * self.intermediate_size + 2)
        vocabularies = 1 if self.tied_embeddings else 2
        outside = self.hidden_size * (vocabularies * self.vocab_size + 1)
        return self.num_layers * layer + outside


def _no_window(config: Config, layers: int) -> Windows:
    return (None,) * layers


def _one_window(config: Config, layers: int) -> Windows:
    """Mistral: every layer slides, unless sliding_window is null."""
    if len(set(_layer_types(config))) > 1:
        raise ValueError("layer_types that differ between layers are not supported in this family")
    return (_window(config),) * layers


def _switched_window(config: Config, layers: int) -> Windows:
    """Qwen: layers slide from max_window_layers on, or as layer_types says, if switched on."""
    window = _window(config) if config.get("use_sliding_window") else None
    first = whole(config, "max_window_layers", 28)
    kinds = _layer_types(config) or [
        "sliding_attention" if layer >= first else "full_attention" for layer in range(layers)
    ]
    if len(kinds) != layers:
        raise ValueError(f"layer_types has {len(kinds)} entries for {layers} layers")
    if unknown := set(kinds) - {"sliding_attention", "full_attention"}:
        raise ValueError(f"layer_types {sorted(unknown)} are not supported")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _window(config: Config) -> int | None:
    """A null says that all is seen, which a key that is not there does not."""
    if "sliding_window" in config and config["sliding_window"] is None:
        return None
    return whole(config, "sliding_window", 4096)


def _layer_types(config: Config) -> list[str]:
    kinds = config.get("layer_types") or []
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise ValueError("layer_types must be a list of names")
    return kinds


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

# What old or hand-made files call a family: `model_type`, in lower case.
MODEL_TYPES = {
    "llama": "LlamaForCausalLM",
    "yi": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

DTYPE_NAMES = ("float32", "float16", "bfloat16")


def read_architecture(folder: Path) -> Architecture:
    """Parse config.json of a model folder. Raises ValueError that says what is wrong."""
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"{folder} has no config.json, so it is no model folder")
    config = read_object(path)
    try:
        return parse_architecture(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def parse_architecture(config: Config) -> Architecture:
    """The switches of a parsed config.json. Raises ValueError for what is not supported."""
    name = _family_name(config)
    family = FAMILIES[name]
    layers = whole(config, "num_hidden_layers")
    windows = family.windows(config, layers)
    config = {**dict(family.defaults), **{k: v for k, v in config.items() if v is not None}}
    _refuse_unsupported(config)
    heads = whole(config, "num_attention_heads")
    hidden = whole(config, "hidden_size")
    positions = whole(config, "max_position_embeddings")
    kv_heads = whole(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(
            f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
        )
    rope = parse_rope(config, positions)
    longest = max(positions, int(rope.original_positions * rope.reach))
    return Architecture(
        name=name,
        vocab_size=whole(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=whole(config, "intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_head_dim(config, hidden, heads),
        norm_eps=real(config, "rms_norm_eps", 1e-6),
        rope=rope,
        max_positions=whole({"max_position_embeddings": longest}, "max_position_embeddings"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=_switch(config, family.qkv_bias),
        output_bias=_switch(config, family.output_bias),
        mlp_bias=_switch(config, family.mlp_bias),
        qk_norm=family.qk_norm,
        windows=windows,
        dtype=_dtype(config),
    )


def check_split(model: Architecture, shards: int) -> None:
    """Raises ValueError where a model cannot be split over so many shards."""
    evenly = {"num_attention_heads": model.num_heads, "intermediate_size": model.intermediate_size}
    for name, value in evenly.items():
        if value % shards:
            raise ValueError(f"{name} {value} cannot be split evenly over {shards} shards")
    if model.num_kv_heads % shards and shards % model.num_kv_heads:
        raise ValueError(
            f"{model.name} with num_key_value_heads {model.num_kv_heads} cannot be split over "
            f"{shards} shards: one number must divide the other"
        )


def _family_name(config: Config) -> str:
    """By the first of `architectures`; by `model_type` where that says nothing known.

    Names of other things than a causal language model are taken at their word.
    """
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else "(none given)"
    if name in FAMILIES:
        return str(name)
    family = MODEL_TYPES.get(str(config.get("model_type")).lower())
    if family is not None and (not named or str(name).endswith("ForCausalLM")):
        return family
    supported = ", ".join(FAMILIES)
    raise ValueError(f"architecture {name!s:.60} is not supported; supported: {supported}")


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


def _head_dim(config: Config, hidden: int, heads: int) -> int:
    if "head_dim" in config:
        width = whole(config, "head_dim")
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
