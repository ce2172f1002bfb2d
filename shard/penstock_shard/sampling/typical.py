"""Draws with typical_p, which torch computes."""

from __future__ import annotations

from torch import Tensor

from penstock_kernels import noise, sampler
from penstock_kernels.draw import SamplingBatch
from penstock_kernels.mask import hide


def draw_typical(
    logits: Tensor, draws: SamplingBatch, parameters: Tensor, k_limit: int | None
) -> Tensor:
    """As `draw`, with typical_p between top_p and min_p. logits: [n, vocabulary] float32, in
    the order of the slots; parameters: `COLUMNS` of all slots; k_limit: as in `RowGroup`."""
    slots = draws.slots
    if draws.mask is not None:
        logits = hide(logits, slots, draws.mask)
    temperature, top_p, typical_p, min_p = parameters.index_select(0, slots).unbind(1)[:4]
    scores = logits / temperature.unsqueeze(1)
    if draws.any_filter:
        top_k = draws.top_k.index_select(0, slots)
        scores = sampler.filter_sorted(scores, top_k, top_p, k_limit)
    scores = sampler.filter_typical(scores, typical_p)
    if draws.any_filter:
        scores = sampler.filter_min_p(scores, min_p)
    keys = noise.token_keys(
        draws.keys.index_select(0, slots), draws.generated.index_select(0, slots)
    )
    token = sampler.argmax_with_noise(scores, noise.gumbel(keys, scores.shape[1]), temperature > 0)
    return sampler.without_token(token, logits.amax(dim=1))
