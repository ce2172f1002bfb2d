"""Which tokens each layer of a family sees, and how it turns queries and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock_shard.model.config_numbers import whole
from penstock_shard.model.rope_config import Rope, global_and_local_ropes, parse_rope

Config = Mapping[str, Any]
Windows = tuple[int | None, ...]  # of each layer: tokens a row sees, itself included; None: all


def no_window(config: Config, layers: int) -> Windows:
    return (None,) * layers


def one_window(config: Config, layers: int) -> Windows:
    """Mistral: every layer slides, unless sliding_window is null."""
    if len(set(_layer_types(config))) > 1:
        raise ValueError("layer_types that differ between layers are not supported in this family")
    return (_window(config),) * layers


def named_window(config: Config, layers: int) -> Windows:
    """Phi-3: every layer slides, if there is a sliding_window."""
    return one_window({"sliding_window": None, **config}, layers)


def switched_window(config: Config, layers: int) -> Windows:
    """Qwen: layers slide from max_window_layers on, or as layer_types says, if switched on."""
    window = _window(config) if config.get("use_sliding_window") else None
    first = whole(config, "max_window_layers", 28)
    kinds = ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
    return _windows_by_kind(config, kinds, window)


def alternating(period: int) -> Callable[[Config, int], Windows]:
    """Gemma: every layer slides but each `period`-th, unless layer_types says otherwise."""

    def windows(config: Config, layers: int) -> Windows:
        if _layer_types(config):
            return _windows_by_kind(config, [""] * layers, _window(config))
        every = whole(config, "sliding_window_pattern", period)
        kinds = [
            "sliding_attention" if layer % every else "full_attention"
            for layer in range(1, layers + 1)
        ]
        return _windows_by_kind(config, kinds, _window(config))

    return windows


def gpt_oss_windows(config: Config, layers: int) -> Windows:
    return alternating(2)({"sliding_window": 128, **config}, layers)


def gpt_neo_windows(config: Config, layers: int) -> Windows:
    """Kinds and how often they are repeated; newer files have a kind a layer as well."""
    kinds = config.get("attention_layers")
    if kinds is None:
        types = config.get("attention_types") or [[["global", "local"], layers // 2]]
        kinds = [kind for some, count in types for kind in list(some) * min(count, layers)]
    named = {"local": "sliding_attention", "global": "full_attention"}
    return _windows_by_kind(
        {"layer_types": [named.get(kind, str(kind)) for kind in kinds]},
        [""] * layers,
        whole(config, "sliding_window", 256),
    )


def _windows_by_kind(config: Config, otherwise: list[str], window: int | None) -> Windows:
    kinds, layers = _layer_types(config) or otherwise, len(otherwise)
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


def all_rotate(config: Config, windows: Windows) -> tuple[bool, ...]:
    return (True,) * len(windows)


def where_windows_are(config: Config, windows: Windows) -> tuple[bool, ...]:
    """Cohere 2, EXAONE 4: what sees all has no positions, unless every layer does."""
    return tuple(window is not None or not any(windows) for window in windows)


def every_fourth_does_not(config: Config, windows: Windows) -> tuple[bool, ...]:
    """SmolLM3: or as no_rope_layers says, where 1 stands for a rotation."""
    every, layers = whole(config, "no_rope_layer_interval", 4), len(windows)
    given = config.get("no_rope_layers")
    if given is None:
        return tuple((layer + 1) % every != 0 for layer in range(layers))
    if not isinstance(given, list) or len(given) != layers or not set(given) <= {0, 1}:
        raise ValueError(f"no_rope_layers must be a list of {layers} numbers, each 0 or 1")
    return tuple(map(bool, given))


def one_rope(config: Config, positions: int) -> tuple[Rope, ...]:
    return (parse_rope(config, positions),)


def partial_rope(config: Config, positions: int) -> tuple[Rope, ...]:
    return (parse_rope(config, positions, may_be_partial=True),)


def gpt_oss_rope(config: Config, positions: int) -> tuple[Rope, ...]:
    if config.get("rope_parameters") or config.get("rope_scaling"):
        return one_rope(config, positions)
    usual = {
        "rope_type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "truncate": False,
    }
    return one_rope({**config, "rope_parameters": usual}, positions)


def gptj_rope(config: Config, positions: int) -> tuple[Rope, ...]:
    """GPT-J says how many elements of a head are rotated, not which part."""
    width = whole(config, "hidden_size") // whole(config, "num_attention_heads")
    share = whole(config, "rotary_dim", 64) / width
    return partial_rope({**config, "partial_rotary_factor": share}, positions)


def scaled_and_plain_ropes(config: Config, positions: int) -> tuple[Rope, ...]:
    """OLMo 3: only layers that see all are scaled. Older files have one entry for both."""
    given = config.get("rope_parameters") or {}
    if "full_attention" in given:
        return global_and_local_ropes(config, positions)
    plain = {"rope_theta": given.get("rope_theta", config.get("rope_theta"))}
    return parse_rope(config, positions), parse_rope(plain, positions)


def no_rope(config: Config, positions: int) -> tuple[Rope, ...]:
    return ()
