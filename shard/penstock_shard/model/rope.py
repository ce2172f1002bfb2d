"""The table of rotations, made of what `rope_config` read."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from penstock_shard.model.rope_config import Rope


def rope_table(rope: Rope, head_dim: int, positions: int, device: torch.device) -> Tensor:
    """Cosines and sines of every position: [positions, 2, head_dim / 2] float32.

    head_dim: elements of a head that are rotated.

    With dynamic scaling the frequencies of a token beyond the original length are those of a
    sequence that ends at it. So a position has one rotation, whatever the sequence grows to, and
    cached blocks hold what recomputation would give. For the same reason longrope takes its long
    factors for all sequences where longer ones than the original length are served, and its short
    ones elsewhere.
    """
    position = torch.arange(positions, dtype=torch.float32, device=device)
    if rope.kind == "dynamic":
        length = (position.double() + 1).clamp(min=rope.original_positions)
        stretch = rope.factor * length / rope.original_positions - (rope.factor - 1)
        theta = rope.theta * stretch ** (head_dim / (head_dim - 2))
        frequency = _inverse_frequencies(theta.unsqueeze(1).float(), head_dim, device)
        angle = position.unsqueeze(1) * frequency
    else:
        angle = torch.outer(position, _scaled_frequencies(rope, head_dim, positions, device))
    return torch.stack((angle.cos(), angle.sin()), dim=1).mul_(rope.attention_factor)


def _inverse_frequencies(theta: float | Tensor, head_dim: int, device: torch.device) -> Tensor:
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    return 1.0 / (theta**exponent)


def _scaled_frequencies(rope: Rope, head_dim: int, positions: int, device: torch.device) -> Tensor:
    plain = _inverse_frequencies(rope.theta, head_dim, device)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(rope, plain)
    if rope.kind == "yarn":
        return _yarn(rope, plain, head_dim)
    if rope.kind == "longrope":
        is_long = positions > rope.original_positions
        factors = rope.long_factor if is_long else rope.short_factor
        return plain / torch.tensor(factors, dtype=torch.float32, device=device)
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
