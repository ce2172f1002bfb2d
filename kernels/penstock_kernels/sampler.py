"""From logits to tokens: penalties, filters, choice and log-probabilities, a batch at a time.

Order as in text-generation-inference: repetition, frequency and presence penalties, bias,
temperature, top_k, top_p, typical_p, min_p. Every function works on all rows at once with static
shapes and no host synchronisation; which of them a step needs is known to the host.

A row's token counts are one int32 per vocabulary entry: bit 0 says that the prompt holds the token,
the bits above count how often it was generated.
"""

from __future__ import annotations

import torch
from torch import Tensor

IN_PROMPT = 1
GENERATED_ONCE = 2
# In place of a token where a row has no largest logit that is a finite number: one is NaN or +inf,
# or all are -inf.
NO_TOKEN = -1


def penalise_repetition(logits: Tensor, counts: Tensor, penalty: Tensor) -> Tensor:
    """Divide positive logits of seen tokens by the penalty, multiply negative ones.

    Keskar et al., 2019 (arXiv:1909.05858), over prompt and generated tokens.

    logits: [n, v] float32; counts: [n, v] int32; penalty: [n] float32. Returns [n, v] float32.
    """
    factor = penalty.unsqueeze(1)
    penalised = torch.where(logits > 0, logits / factor, logits * factor)
    return torch.where(counts != 0, penalised, logits)


def penalise_frequency(
    logits: Tensor, counts: Tensor, frequency: Tensor, presence: Tensor
) -> Tensor:
    """Subtract count * frequency + (count > 0) * presence over generated tokens, as OpenAI defines.

    logits: [n, v] float32; counts: [n, v] int32; frequency, presence: [n] float32.
    """
    generated = (counts >> 1).to(logits.dtype)
    logits = torch.addcmul(logits, generated, frequency.unsqueeze(1), value=-1)
    return logits.addcmul_(generated.clamp_(max=1), presence.unsqueeze(1), value=-1)


def filter_sorted(logits: Tensor, top_k: Tensor, top_p: Tensor, k_limit: int | None) -> Tensor:
    """Keep the top_k most likely tokens, and of those the smallest set whose mass reaches top_p.

    The nucleus is that of Holtzman et al. (arXiv:1904.09751). Tokens that tie with the last one
    kept are kept too, so that the result does not depend on the order of the sort.
    logits: [n, v] float32; top_k: [n] int64, 0 is off; top_p: [n] float32, 1 is off;
    k_limit: the largest top_k if every row has one, else None. Returns [n, v], others at -inf.
    """
    vocabulary = logits.shape[1]
    if k_limit is None or k_limit >= vocabulary:
        ranked = logits.sort(dim=1, descending=True).values
    else:
        ranked = logits.topk(k_limit, dim=1).values
    keep = torch.where(top_k == 0, vocabulary, top_k).clamp_(max=ranked.shape[1]).unsqueeze(1)
    rank = torch.arange(ranked.shape[1], device=logits.device)
    kept = torch.where(rank < keep, ranked, -torch.inf)
    probability = kept.softmax(dim=1)
    before = probability.cumsum(dim=1).sub_(probability)
    # top_p == 1 must keep all: the sum before a tail token may round to 1.
    mass = torch.where(top_p >= 1, torch.inf, top_p).unsqueeze(1)
    count = ((before < mass) & (rank < keep)).sum(dim=1, keepdim=True).clamp_(min=1)
    threshold = ranked.gather(1, count - 1)
    return logits.masked_fill(logits < threshold, -torch.inf)


def filter_typical(logits: Tensor, typical_p: Tensor) -> Tensor:
    """Keep the tokens whose information is nearest to the entropy, up to a mass (arXiv:2202.00666).

    logits: [n, v] float32; typical_p: [n] float32, 1 is off. Returns [n, v], others at -inf.
    """
    log_probability = logits.log_softmax(dim=1)
    probability = log_probability.exp()
    information = torch.where(probability > 0, -log_probability, 0.0)
    entropy = (probability * information).sum(dim=1, keepdim=True)
    distance = torch.where(probability > 0, (information - entropy).abs_(), torch.inf)
    ranked, order = distance.sort(dim=1)
    mass = probability.gather(1, order)
    before = mass.cumsum(dim=1).sub_(mass)
    count = (before < typical_p.unsqueeze(1)).sum(dim=1, keepdim=True).clamp_(min=1)
    threshold = ranked.gather(1, count - 1)
    remove = (distance > threshold) & (typical_p < 1).unsqueeze(1)
    return logits.masked_fill(remove, -torch.inf)


def filter_min_p(logits: Tensor, min_p: Tensor) -> Tensor:
    """Keep the tokens at least min_p times as likely as the most likely one (arXiv:2407.01082).

    logits: [n, v] float32; min_p: [n] float32, 0 is off. Returns [n, v], others at -inf.
    """
    threshold = logits.amax(dim=1, keepdim=True) + min_p.log().unsqueeze(1)
    return logits.masked_fill(logits < threshold, -torch.inf)


def argmax_with_noise(logits: Tensor, noise: Tensor | None, random: Tensor | None) -> Tensor:
    """The most likely token, or with noise a draw, of each row; the first one of equals.

    logits: [n, v] float32; noise: [n, v] Gumbel noise; random: [n] bool, False is greedy.
    Returns [n] int64.
    """
    if noise is None or random is None:
        return logits.argmax(dim=1)
    return torch.addcmul(logits, noise, random.unsqueeze(1).to(noise.dtype)).argmax(dim=1)


def without_token(token: Tensor, largest: Tensor) -> Tensor:
    """The tokens, NO_TOKEN where the largest logit of the row is not finite.

    token: [n] int64; largest: [n], NaN where any logit is. Returns [n] int64.
    """
    return token.masked_fill(largest.isfinite().logical_not_(), NO_TOKEN)


def log_probabilities(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """log softmax(logits) at each row's token.

    logits: [n, v] float32; tokens: [n] int64. Returns it and the log of the sum, each [n].
    """
    total = logits.logsumexp(dim=1)
    return logits.gather(1, tokens.unsqueeze(1)).squeeze(1) - total, total


def ranks(logits: Tensor, tokens: Tensor) -> Tensor:
    """1 + the number of logits that are greater than that of each row's token: equals share one.

    logits: [n, v]; tokens: [n] int64. Returns [n] int32.
    """
    greater = logits > logits.gather(1, tokens.unsqueeze(1))
    return greater.sum(dim=1, dtype=torch.int32).add_(1)
