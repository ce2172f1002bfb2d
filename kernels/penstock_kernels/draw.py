"""Tokens drawn from the logits of a step: temperature, top_k, top_p, min_p, and the choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.noise import gumbel, token_keys
from penstock_kernels.sampler import choose, filter_min_p, filter_sorted


@dataclass(frozen=True, slots=True)
class Draws:
    """Which slots draw, and what they want. All tensors but the first two have a row for each slot.

    slots: [n] int64; rows: [n] int64, where their logits stand; temperature: [slots] float32, 0 is
    greedy; top_k: [slots] int64, 0 is off; top_p, min_p: [slots] float32, 1 and 0 are off; keys:
    [slots, 2] int32 from `noise.seed_keys`; generated: [slots] int64, tokens before the one that is
    drawn.
    cuts: whether any of them has a top_k, top_p or min_p; k_limit: the largest top_k where all of
    them have one, else None.
    """

    slots: Tensor
    rows: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    keys: Tensor
    generated: Tensor
    cuts: bool
    k_limit: int | None


def draw(logits: Tensor, draws: Draws) -> Tensor:
    """A token for each slot that draws: the largest of logits / temperature plus Gumbel noise among
    those that the cuts leave. A row's token depends on nothing but the row.

    logits: [m, v]. Returns [n] int64.
    """

    def of(values: Tensor) -> Tensor:
        return values.index_select(0, draws.slots)

    scores = logits.index_select(0, draws.rows).float()
    temperature = of(draws.temperature)
    random = temperature > 0
    scores = scores / torch.where(random, temperature, 1.0).unsqueeze(1)
    if draws.cuts:
        scores = filter_sorted(scores, of(draws.top_k), of(draws.top_p), draws.k_limit)
        scores = filter_min_p(scores, of(draws.min_p))
    keys = token_keys(of(draws.keys), of(draws.generated))
    return choose(scores, gumbel(keys, scores.shape[1]), random)
