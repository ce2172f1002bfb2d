"""Numbers of a few bits that stand in words of 32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WORD = 32


def unpack(words: Tensor, bits: int) -> Tensor:
    """Along the last dimension, low bits first; 3 bits do not divide a word, so three words hold 32
    numbers. words: [..., w] int32. Returns [..., at least w * 32 / bits] uint8."""
    run = bits if WORD % bits else 1  # words after which numbers begin anew
    words = F.pad(words, (0, -words.shape[-1] % run))
    *outer, count = words.shape
    words = words.reshape(*outer, count // run, run)
    numbers = WORD * run // bits
    out = torch.empty(*outer, count // run, numbers, dtype=torch.uint8, device=words.device)
    # without memory there are no numbers: that is for the rehearsal of a load, where torch takes a
    # millisecond of Python for each of these lines
    for i in range(0 if words.is_meta else numbers):
        word, shift = divmod(i * bits, WORD)
        value = words[..., word] >> shift
        if shift + bits > WORD:  # the sign that came in from the left is masked away
            low = (1 << (WORD - shift)) - 1
            value = (value & low) | (words[..., word + 1] << (WORD - shift))
        out[..., i] = value & ((1 << bits) - 1)
    return out.view(*outer, count // run * numbers)
