"""The softmax of Hopper's attention kernels, tile of keys after tile of keys.

Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def softmax(scores, best, total, scale, HIDDEN: gl.constexpr = False):
    """Of scores [rows, keys]: their exponentials, by how much older ones shrink, and of each row
    the largest score so far, in units of log2, and the sum of exponentials.

    best, total: [rows], of the keys before; scale: of scores to units of log2; HIDDEN: a row may
    have seen no key yet.
    """
    new = gl.maximum(best, gl.max(scores, 1) * scale)
    safe = new
    if HIDDEN:  # exp2(-inf - -inf) would be NaN
        safe = gl.where(new == float("-inf"), 0.0, new)
    p = gl.exp2(scores * scale - gl.expand_dims(safe, 1))
    shrink = gl.exp2(best - safe)
    return p, shrink, new, total * shrink + gl.sum(p, 1)
