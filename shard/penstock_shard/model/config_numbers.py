"""The numbers of config.json, each held against its rule before anything is made of it.

The upper ends lie far above any model there is: beyond them a file is damaged or hostile, and what
follows from it (a table of positions, a list of layers) would not fit in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHOWN = 40  # characters of a value in a sentence


@dataclass(frozen=True, slots=True)
class Rule:
    """A number from low to high; `above` excludes low itself."""

    low: float
    high: float
    whole: bool = True
    above: bool = False

    def broken_by(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return True
        within = self.low <= value <= self.high  # which no NaN is
        return not within or (self.above and value == self.low)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.above:
            return f"{kind} above {self.low:g} and at most {self.high:g}"
        return f"{kind} from {self.low:.15g} to {self.high:.15g}"


POSITIONS = Rule(1, 2**24)
FACTOR = Rule(1, 2**16, whole=False)
POSITIVE = Rule(0, 1e6, whole=False, above=True)
MULTIPLIER = Rule(2**-16, 2**16, whole=False)
THETA = Rule(1, 1e15, whole=False, above=True)
MSCALE = Rule(0, 1e6, whole=False)  # 0: off

RULES = {
    "vocab_size": Rule(1, 2**24),
    "hidden_size": Rule(1, 2**17),
    "intermediate_size": Rule(1, 2**20),
    "num_hidden_layers": Rule(1, 2**10),
    "num_experts": Rule(1, 2**12),
    "num_local_experts": Rule(1, 2**12),
    "num_experts_per_tok": Rule(1, 2**12),
    "moe_intermediate_size": Rule(1, 2**20),
    "shared_expert_intermediate_size": Rule(1, 2**20),
    "decoder_sparse_step": Rule(1, 2**10),
    "num_attention_heads": Rule(1, 2**12),
    "num_key_value_heads": Rule(1, 2**12),
    "head_dim": Rule(4, 2**12),
    "max_position_embeddings": POSITIONS,
    "original_max_position_embeddings": POSITIONS,
    "sliding_window": POSITIONS,
    "sliding_window_pattern": Rule(1, 2**10),
    "max_window_layers": Rule(0, 2**10),
    "rms_norm_eps": Rule(0, 1, whole=False, above=True),
    "rope_theta": THETA,
    "rope_local_base_freq": THETA,
    "partial_rotary_factor": Rule(0, 1, whole=False, above=True),
    "query_pre_attn_scalar": POSITIVE,
    "embedding_multiplier": MULTIPLIER,
    "residual_multiplier": MULTIPLIER,
    "attention_multiplier": MULTIPLIER,
    "logits_scaling": MULTIPLIER,
    "logit_scale": MULTIPLIER,
    "rotary_dim": Rule(2, 2**12),
    "no_rope_layer_interval": Rule(1, 2**10),
    "attn_logit_softcapping": POSITIVE,
    "final_logit_softcapping": POSITIVE,
    "factor": FACTOR,
    "low_freq_factor": POSITIVE,
    "high_freq_factor": POSITIVE,
    "beta_fast": POSITIVE,
    "beta_slow": POSITIVE,
    "attention_factor": POSITIVE,
    "mscale": MSCALE,
    "mscale_all_dim": MSCALE,
}


def whole(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """An integer; the default where there is none. Raises ValueError that names it."""
    return int(_checked(values, name, default))


def real(values: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A number; the default where there is none, or a null. Raises ValueError that names it."""
    return float(_checked(values, name, default))


def reals(values: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """A list of numbers above 0. Raises ValueError that names it."""
    value = values.get(name)
    if not isinstance(value, list) or any(map(POSITIVE.broken_by, value)):
        raise ValueError(f"{name} must be a list of numbers above 0, not {shown(value)}")
    return tuple(float(number) for number in value)


def shown(value: object) -> str:
    """A value of config.json in a sentence, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _checked(values: Mapping[str, Any], name: str, default: float | None) -> float:
    value = values.get(name)
    value = default if value is None else value
    if RULES[name].broken_by(value):
        raise ValueError(f"{name} must be {RULES[name]}, not {shown(value)}")
    assert isinstance(value, (int, float))
    return value
