"""Rules about tokens, whatever their logits: those that may not come now, and those favoured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.noise import seed_keys, token_bits, token_keys

LOOK_BACK = 15  # generated tokens that a ban may depend on
ANY = -2  # in place of a token that it does not depend on; no sequence holds it
_SIGN = -(2**31)
GREEN_KEY = 15_485_863  # TGI's, and that of the authors' code


@dataclass(frozen=True, slots=True)
class Bans:
    """Tokens that may not come where what they depend on holds; m of them.

    slot, row, token: [m] int64, whose it is, where its logits stand, which; until: [m] int64, it
    holds before so many tokens are generated; before: [m, LOOK_BACK] int64, and behind these
    tokens, the last one last.
    """

    slot: Tensor
    row: Tensor
    token: Tensor
    until: Tensor
    before: Tensor


@dataclass(frozen=True, slots=True)
class Allowed:
    """All tokens that may come at all. row: [k] int64; others: [k, v] bool, those that may not."""

    row: Tensor
    others: Tensor


@dataclass(frozen=True, slots=True)
class Green:
    """Watermarked rows. slot, row: [k] int64; below, bias: [k], int32 and float32."""

    slot: Tensor
    row: Tensor
    below: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True)
class Rules:
    """All of a batch."""

    bans: Bans | None
    allowed: Allowed | None
    green: Green | None


def keep_rules(
    scores: Tensor, rules: Rules, generated: Tensor, recent: Tensor, last: Tensor
) -> None:
    """Change scores so that rules are kept: -inf for what may not come.

    scores: [n, v] float32, changed in place; generated, last: [slots] int64, how many tokens, and
    the one before the next, of the prompt too; recent: [slots, LOOK_BACK] int64, generated tokens.
    """
    if rules.green is not None:
        favour_green(scores, rules.green, last)
    if rules.allowed is not None:
        row, others = rules.allowed.row, rules.allowed.others
        scores.index_copy_(0, row, scores.index_select(0, row).masked_fill_(others, -torch.inf))
    if rules.bans is not None:
        _forbid(scores, rules.bans, generated, recent)


def favour_green(scores: Tensor, green: Green, last: Tensor) -> None:
    """Add a bias to the tokens that are green behind the last one: Kirchenbauer et al., 2023
    (arXiv:2301.10226), with the left token as seed.

    A token is green where a hash of both is below a share of 2^32, so that no permutation of the
    vocabulary has to be made: the list's length is that share on average.
    scores: [n, v] float32, changed in place; last: [slots] int64.
    """
    bits = green_bits(last.index_select(0, green.slot), scores.shape[1])
    bias = (bits < green.below.unsqueeze(1)).float().mul_(green.bias.unsqueeze(1))
    scores.index_add_(0, green.row, bias)


def green_bits(last: Tensor, vocabulary: int) -> Tensor:
    """What is compared with the share: [n, vocabulary] int32, from [n] int64 tokens. Their order is
    that of the hash without a sign."""
    words = [last.new_full((len(last),), word, dtype=torch.int32) for word in seed_keys(GREEN_KEY)]
    return token_bits(token_keys(torch.stack(words, dim=1), last), vocabulary).bitwise_xor_(_SIGN)


def green_below(share: float) -> int:
    """The bound of `green_bits` that leaves a share of all below it."""
    return min(round(share * 2**32), 2**32 - 1) - 2**31


def _forbid(scores: Tensor, bans: Bans, generated: Tensor, recent: Tensor) -> None:
    early = generated.index_select(0, bans.slot) < bans.until
    behind = (bans.before == ANY) | (bans.before == recent.index_select(0, bans.slot))
    change = torch.where(early & behind.all(dim=1), -torch.inf, 0.0)
    place = bans.row * scores.shape[1] + bans.token
    scores.view(-1).index_add_(0, place, change)
