"""Counter-based random numbers: the noise of a token is a function of who asks, not of when.

The same (seed, index of the token, index in the vocabulary) always gives the same number, whatever
else is in the batch and however often the sequence was preempted. All arithmetic is that of 32-bit
unsigned integers, held in int32 tensors whose products wrap, so that a GPU kernel can repeat it
bit by bit. The mixing function is the two-multiplication finaliser "lowbias32" of Chris Wellons'
hash prospector (public domain).
"""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLY_1 = 0x7FEB352D
_MULTIPLY_2 = 0x846CA68B - (1 << 32)  # as int32
_GOLDEN = 0x9E3779B9 - (1 << 32)
_MASK_64 = (1 << 64) - 1


def seed_keys(seed: int) -> tuple[int, int]:
    """Two int32 words from a 64-bit seed, by splitmix64 (Steele et al., 2014).

    Neighbouring seeds, which people use most, give unrelated words.
    """
    z = (seed + 0x9E3779B97F4A7C15) & _MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK_64
    z ^= z >> 31
    return _as_int32(z & 0xFFFFFFFF), _as_int32(z >> 32)


def token_keys(keys: Tensor, index: Tensor) -> Tensor:
    """Keys of one token of each sequence.

    keys: [n, 2] int32 from `seed_keys`; index: [n] int64, tokens generated before this one.
    Returns [n, 2] int32.
    """
    step = index.to(torch.int32).mul_(_GOLDEN)
    return _mix(keys ^ step.unsqueeze(1))


def token_bits(keys: Tensor, vocabulary: int) -> Tensor:
    """32 random bits for each token of the vocabulary.

    keys: [n, 2] int32 from `token_keys`. Returns [n, vocabulary] int32.
    """
    index = torch.arange(vocabulary, dtype=torch.int32, device=keys.device)
    return _mix(index ^ keys[:, :1], keys[:, 1:])


def gumbel(keys: Tensor, vocabulary: int) -> Tensor:
    """Gumbel noise: argmax(logits + noise) is a draw from softmax(logits) (Maddison et al., 2014).

    keys: [n, 2] int32 from `token_keys`. Returns [n, vocabulary] float32, finite.
    """
    bits = token_bits(keys, vocabulary)
    # Uniform in (0, 1): the 32 bits read as unsigned, plus one half, over 2^32. Winners have small
    # `uniform`, where float32 is densest, so even one token in 10^9 is drawn as often as it should.
    uniform = bits.to(torch.float32)
    uniform = torch.where(bits < 0, uniform + 2.0**32, uniform).add_(0.5).mul_(2.0**-32)
    exponential = uniform.clamp_(max=1.0 - 2.0**-24).neg_().log1p_().neg_()
    return exponential.log_().neg_()


def _mix(x: Tensor, key: Tensor | None = None) -> Tensor:
    """lowbias32 of int32 words; a second key may enter between the rounds."""
    x = x ^ _shift(x, 16)
    x.mul_(_MULTIPLY_1)
    if key is not None:
        x.bitwise_xor_(key)
    x.bitwise_xor_(_shift(x, 15))
    x.mul_(_MULTIPLY_2)
    return x.bitwise_xor_(_shift(x, 16))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: int32's own is arithmetic, so the copies of the sign are masked off."""
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def _as_int32(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word
