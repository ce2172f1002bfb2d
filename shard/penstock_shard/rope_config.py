"""Rotary frequencies as config.json asks for them.

Scalings: linear (position interpolation, arXiv:2306.15595), dynamic (NTK-aware, by its first
description of 2023), yarn (arXiv:2309.00071) and llama3 (arXiv:2407.21783). `rope` makes the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock_shard.config_numbers import real, whole

KINDS = ("default", "linear", "dynamic", "llama3", "yarn")
# Keys that older files have beside the scaling instead of in it.
ALSO_OUTSIDE = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """What the frequencies depend on. Fields that a kind does not use keep their defaults."""

    kind: str
    theta: float
    factor: float = 1.0
    original_positions: int  # max_position_embeddings of the pretraining
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float = 1.0  # yarn: multiplies cosine and sine
    truncate: bool = True  # yarn

    @property
    def reach(self) -> float:
        """By how much the scaling lengthens original_positions."""
        return self.factor if self.kind in ("linear", "dynamic", "yarn") else 1.0


def parse_rope(config: Mapping[str, Any], max_positions: int) -> Rope:
    """Read `rope_parameters`, or the older `rope_scaling` and `rope_theta`.

    Raises ValueError for a kind or option that is not supported, or a number that cannot be.
    """
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"rope_parameters must be an object, not a {type(given).__name__}")
    outer = {name: value for name, value in config.items() if name in ALSO_OUTSIDE}
    values = {**outer, **{name: value for name, value in given.items() if value is not None}}
    kind = values.get("rope_type", values.get("type", "default"))
    if kind not in KINDS:
        raise ValueError(f"rope type {kind!r} is not supported; supported: {', '.join(KINDS)}")
    if (partial := values.get("partial_rotary_factor")) not in (None, 1, 1.0):
        raise ValueError(f"partial_rotary_factor {partial} is not supported; supported: 1")
    theta = real(values, "rope_theta", 10000.0)
    if kind == "default":
        return Rope(kind=kind, theta=theta, original_positions=max_positions)
    original = whole(values, "original_max_position_embeddings", max_positions)
    factor = real(values, "factor", max_positions / original if kind == "yarn" else None)
    if kind in ("linear", "dynamic"):
        return Rope(kind=kind, theta=theta, factor=factor, original_positions=max_positions)
    if kind == "llama3":
        return _llama3(values, theta, factor, original)
    return Rope(
        kind=kind,
        theta=theta,
        factor=factor,
        original_positions=original,
        beta_fast=real(values, "beta_fast", 32.0),
        beta_slow=real(values, "beta_slow", 1.0),
        attention_factor=_yarn_attention_factor(values, factor),
        truncate=bool(values.get("truncate", True)),
    )


def _llama3(values: Mapping[str, Any], theta: float, factor: float, original: int) -> Rope:
    low = real(values, "low_freq_factor", 1.0)
    high = real(values, "high_freq_factor", 4.0)
    if high <= low:
        raise ValueError(f"high_freq_factor must be above low_freq_factor, {low:g}, not {high:g}")
    return Rope(
        kind="llama3",
        theta=theta,
        factor=factor,
        original_positions=original,
        low_freq_factor=low,
        high_freq_factor=high,
    )


def _yarn_attention_factor(values: Mapping[str, Any], factor: float) -> float:
    if values.get("attention_factor") is not None:
        return real(values, "attention_factor")

    def scale(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if values.get("mscale") and values.get("mscale_all_dim"):
        return scale(real(values, "mscale")) / scale(real(values, "mscale_all_dim"))
    return scale(1.0)
