"""Rotary frequencies as config.json asks for them.

Scalings: linear (position interpolation, arXiv:2306.15595), dynamic (NTK-aware, by its first
description of 2023), yarn (arXiv:2309.00071), llama3 (arXiv:2407.21783) and longrope
(arXiv:2402.13753). `rope` makes the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock_shard.model.config_numbers import real, reals, whole

BY_LENGTH = ("yarn", "longrope")  # their factor may follow from the lengths
KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
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
    attention_factor: float = 1.0  # yarn, longrope: multiplies cosine and sine
    truncate: bool = True  # yarn
    partial: float = 1.0  # how much of a head is rotated: its leading elements
    short_factor: tuple[float, ...] = ()  # longrope, for contexts up to original_positions
    long_factor: tuple[float, ...] = ()  # and for longer ones

    @property
    def reach(self) -> float:
        """By how much the scaling lengthens original_positions."""
        return self.factor if self.kind in ("linear", "dynamic", "yarn") else 1.0

    def rotated(self, width: int) -> int:
        """Elements of a head that are rotated. Raises ValueError for an odd number, and where
        longrope has not as many factors as pairs."""
        count = int(width * self.partial)
        if count % 2 or not count:
            raise ValueError(
                f"partial_rotary_factor {self.partial} of head_dim {width} makes {count}, which "
                "cannot be rotated: it must be even"
            )
        for name, factors in (("short", self.short_factor), ("long", self.long_factor)):
            if self.kind == "longrope" and len(factors) != count // 2:
                raise ValueError(
                    f"{name}_factor must be a list of {count // 2} numbers, not {len(factors)}"
                )
        return count


def parse_rope(config: Mapping[str, Any], max_positions: int, may_be_partial: bool = False) -> Rope:
    """Read `rope_parameters`, or the older `rope_scaling` and `rope_theta`.

    may_be_partial: whether the family may rotate a part of each head. Raises ValueError for a kind
    or option that is not supported, or a number that cannot be.
    """
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"rope_parameters must be an object, not a {type(given).__name__}")
    outer = {name: value for name, value in config.items() if name in ALSO_OUTSIDE}
    values = {**outer, **{name: value for name, value in given.items() if value is not None}}
    kind = values.get("rope_type", values.get("type", "default"))
    kind = "longrope" if kind == "su" else kind  # as it was called first
    if kind not in KINDS:
        raise ValueError(f"rope type {kind!r} is not supported; supported: {', '.join(KINDS)}")
    partial = values.get("partial_rotary_factor")
    if partial not in (None, 1, 1.0) and not may_be_partial:
        raise ValueError(f"partial_rotary_factor {partial} is not supported; supported: 1")
    rope = _scaled_rope(kind, values, max_positions)
    return replace(rope, partial=real(values, "partial_rotary_factor", 1.0))


def global_and_local_ropes(config: Mapping[str, Any], max_positions: int) -> tuple[Rope, ...]:
    """Of layers that see all, then of those that slide (Gemma 3): each its own entry of
    `rope_parameters`, or, in older files, `rope_local_base_freq` for those that slide."""
    given = config.get("rope_parameters")
    if isinstance(given, Mapping) and "full_attention" in given:
        wide, local = (
            {**config, "rope_parameters": given.get(kind)}
            for kind in ("full_attention", "sliding_attention")
        )
    else:
        wide = {"rope_theta": 1e6, **config}
        local = {"rope_theta": real(config, "rope_local_base_freq", 10000.0)}
    return parse_rope(wide, max_positions), parse_rope(local, max_positions)


def _scaled_rope(kind: str, values: Mapping[str, Any], max_positions: int) -> Rope:
    theta = real(values, "rope_theta", 10000.0)
    if kind == "default":
        return Rope(kind=kind, theta=theta, original_positions=max_positions)
    original = whole(values, "original_max_position_embeddings", max_positions)
    factor = real(values, "factor", max_positions / original if kind in BY_LENGTH else None)
    if kind in ("linear", "dynamic"):
        return Rope(kind=kind, theta=theta, factor=factor, original_positions=max_positions)
    if kind == "llama3":
        return _llama3(values, theta, factor, original)
    if kind == "longrope":
        return _longrope(values, theta, factor, original)
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


def _longrope(values: Mapping[str, Any], theta: float, factor: float, original: int) -> Rope:
    scale = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 < original else 1.0
    return Rope(
        kind="longrope",
        theta=theta,
        factor=factor,
        original_positions=original,
        attention_factor=real(values, "attention_factor", scale),
        short_factor=reals(values, "short_factor"),
        long_factor=reals(values, "long_factor"),
    )


def _yarn_attention_factor(values: Mapping[str, Any], factor: float) -> float:
    if values.get("attention_factor") is not None:
        return real(values, "attention_factor")

    def scale(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if values.get("mscale") and values.get("mscale_all_dim"):
        return scale(real(values, "mscale")) / scale(real(values, "mscale_all_dim"))
    return scale(1.0)
