"""Rotary frequencies of a model: its scaling, read from config.json, and the table made of it.

Scalings: linear (position interpolation, arXiv:2306.15595), dynamic (NTK-aware, by its first
description of 2023), yarn (arXiv:2309.00071) and llama3 (arXiv:2407.21783).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


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

    Raises ValueError for a kind or option that is not supported.
    """
    values = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = values.get("rope_type", values.get("type", "default"))
    if kind not in KINDS:
        raise ValueError(f"rope type {kind!r} is not supported; supported: {', '.join(KINDS)}")
    partial = values.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise ValueError(f"partial_rotary_factor {partial} is not supported; supported: 1")
    theta = float(values.get("rope_theta", config.get("rope_theta") or 10000.0))
    original = int(
        values.get("original_max_position_embeddings")
        or config.get("original_max_position_embeddings")
        or max_positions
    )
    if kind == "default":
        return Rope(kind=kind, theta=theta, original_positions=max_positions)
    factor = values.get("factor")
    if factor is None and kind == "yarn":
        factor = max_positions / original
    if not isinstance(factor, (int, float)) or factor < 1:
        raise ValueError(f"rope type {kind!r} needs a factor of at least 1, not {factor!r}")
    if kind in ("linear", "dynamic"):
        return Rope(kind=kind, theta=theta, factor=factor, original_positions=max_positions)
    if kind == "llama3":
        return Rope(
            kind=kind,
            theta=theta,
            factor=factor,
            original_positions=original,
            low_freq_factor=float(values.get("low_freq_factor", 1.0)),
            high_freq_factor=float(values.get("high_freq_factor", 4.0)),
        )
    return Rope(
        kind=kind,
        theta=theta,
        factor=factor,
        original_positions=original,
        beta_fast=float(values.get("beta_fast") or 32.0),
        beta_slow=float(values.get("beta_slow") or 1.0),
        attention_factor=_yarn_attention_factor(values, factor),
        truncate=bool(values.get("truncate", True)),
    )


def rope_table(rope: Rope, head_dim: int, positions: int, device: torch.device) -> Tensor:
    """Cosines and sines of every position: [positions, 2, head_dim / 2] float32.

    With dynamic scaling the frequencies of a token beyond the original length are those of a
    sequence that ends at it. So a position has one rotation, whatever the sequence grows to, and
    cached blocks hold what recomputation would give.
    """
    position = torch.arange(positions, dtype=torch.float32, device=device)
    if rope.kind == "dynamic":
        length = (position.double() + 1).clamp(min=rope.original_positions)
        stretch = rope.factor * length / rope.original_positions - (rope.factor - 1)
        theta = rope.theta * stretch ** (head_dim / (head_dim - 2))
        frequency = _inverse_frequencies(theta.unsqueeze(1).float(), head_dim, device)
        angle = position.unsqueeze(1) * frequency
    else:
        angle = torch.outer(position, _scaled_frequencies(rope, head_dim, device))
    return torch.stack((angle.cos(), angle.sin()), dim=1).mul_(rope.attention_factor)


def _inverse_frequencies(theta: float | Tensor, head_dim: int, device: torch.device) -> Tensor:
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    return 1.0 / (theta**exponent)


def _scaled_frequencies(rope: Rope, head_dim: int, device: torch.device) -> Tensor:
    plain = _inverse_frequencies(rope.theta, head_dim, device)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(rope, plain)
    if rope.kind == "yarn":
        return _yarn(rope, plain, head_dim)
    return plain


def _llama3(rope: Rope, plain: Tensor) -> Tensor:
    """Long wavelengths are divided by the factor, short ones kept, those between interpolated."""
    turns = rope.original_positions * plain / (2 * math.pi)  # in the original context
    smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = smooth.clamp(0, 1)
    return (1 - smooth) * plain / rope.factor + smooth * plain


def _yarn(rope: Rope, plain: Tensor, head_dim: int) -> Tensor:
    """Dimensions that turn more than beta_fast times are kept, below beta_slow divided."""

    def dimension(turns: float) -> float:
        ratio = rope.original_positions / (turns * 2 * math.pi)
        return head_dim * math.log(ratio) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    index = torch.arange(head_dim // 2, dtype=torch.float32, device=plain.device)
    divided = ((index - low) / (high - low)).clamp(0, 1)
    return plain / rope.factor * divided + plain * (1 - divided)


def _yarn_attention_factor(values: Mapping[str, Any], factor: float) -> float:
    if values.get("attention_factor") is not None:
        return float(values["attention_factor"])

    def scale(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if values.get("mscale") and values.get("mscale_all_dim"):
        return scale(values["mscale"]) / scale(values["mscale_all_dim"])
    return scale(1.0)
