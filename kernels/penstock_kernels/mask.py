"""Tokens that a grammar allows, as bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WORD = 32  # bits of an int32


@dataclass(frozen=True, slots=True)
class Mask:
    """Of every slot: token i is allowed where bit i % 32 of word i // 32 is set.

    bits: [slots, words] int32; on: [slots] int32, 0 where the slot has no grammar: then its bits
    mean nothing and all is allowed.
    """

    bits: Tensor
    on: Tensor


def words_of(vocabulary: int) -> int:
    """How many words hold a bit for each token."""
    return -(-vocabulary // WORD)


def hide(logits: Tensor, slots: Tensor, mask: Mask) -> Tensor:
    """Logits of tokens that are not allowed at -inf, behind penalties and before temperature.

    NaN and infinity stay where they are: such a row has no token, whatever is allowed.
    logits: [n, v]; slots: [n] int64. Returns [n, v].
    """
    shift = torch.arange(WORD, dtype=torch.int32, device=logits.device)
    words = mask.bits.index_select(0, slots).unsqueeze(2)
    allowed = ((words >> shift) & 1).view(len(slots), -1)[:, : logits.shape[1]] != 0
    allowed |= (mask.on.index_select(0, slots) == 0).unsqueeze(1)
    return logits.masked_fill(~allowed & (logits < torch.inf), -torch.inf)
