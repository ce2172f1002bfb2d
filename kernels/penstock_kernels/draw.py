"""Tokens drawn from the logits of a step: temperature, top_k, top_p, min_p, and the choice."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from penstock_kernels.mask import Mask, hide
from penstock_kernels.noise import gumbel, token_keys
from penstock_kernels.sampler import filter_min_p, filter_sorted, without_token


@dataclass(frozen=True, slots=True)
class SamplingBatch:
    """Which slots draw, and what they want. All tensors but the first two have a row for each slot.

    slots: [n] int64; rows: [n] int64, where their logits stand; temperature: [slots] float32, 0 is
    greedy; top_k: [slots] int64, 0 is off; top_p, min_p: [slots] float32, 1 and 0 are off; keys:
    [slots, 2] int32 from `noise.seed_keys`; generated: [slots] int64, tokens before the one that is
    drawn.
    any_top_k, any_top_p, any_filter: whether any that is not greedy has a top_k; a top_p; one of
    these or a min_p. mask: what grammars allow, where any slot has one.
    """

    slots: Tensor
    rows: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    keys: Tensor
    generated: Tensor
    any_top_k: bool
    any_top_p: bool
    any_filter: bool
    mask: Mask | None = None


def draw(logits: Tensor, draws: SamplingBatch) -> Tensor:
    """A token for each slot that draws: the largest of logits / temperature plus Gumbel noise among
    those that the cuts leave. A row's token depends on nothing but the row.

    What no row asks for costs nothing, for which the device is waited for: this is the CPU's.

    logits: [m, v]. Returns [n] int64, NO_TOKEN where the largest logit is not finite.
    """
    scores = logits.index_select(0, draws.rows).float()
    if draws.mask is not None:
        scores = hide(scores, draws.slots, draws.mask)
    token = scores.argmax(dim=1)
    largest = scores.gather(1, token.unsqueeze(1)).squeeze(1)  # NaN counts as the largest
    random = (draws.temperature.index_select(0, draws.slots) > 0).nonzero().flatten()
    if not len(random):
        return without_token(token, largest)
    slots = draws.slots.index_select(0, random)

    def of(values: Tensor) -> Tensor:
        return values.index_select(0, slots)

    scores = scores.index_select(0, random) / of(draws.temperature).unsqueeze(1)
    if draws.any_filter:
        scores = _cut(scores, of(draws.top_k), of(draws.top_p), of(draws.min_p))
    keys = token_keys(of(draws.keys), of(draws.generated))
    token[random] = (scores + gumbel(keys, scores.shape[1])).argmax(dim=1)
    return without_token(token, largest)


def _cut(scores: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Only rows that have a top_k or top_p are sorted; of a row, no more than its top_k."""
    rows = ((top_k > 0) | (top_p < 1)).nonzero().flatten()
    if len(rows):
        k, p = top_k[rows], top_p[rows]
        k_limit = int(k.max()) if bool((k > 0).all()) else None
        scores[rows] = filter_sorted(scores[rows], k, p, k_limit)
    return filter_min_p(scores, min_p) if bool((min_p > 0).any()) else scores
