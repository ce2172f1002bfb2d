"""The rows of an item of `hopper_decode`: which keys count, and where their results go.

Both its products come here, that with the queries of many rows as the tall side and that with the
keys: AXIS of their scores and sums is the one along which a row's keys or dims lie, 1 and 0.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from penstock_kernels.gpu.attention.hopper_kv8 import number_of


@gluon.jit
def hide(scores, skip, known, AXIS: gl.constexpr):
    """-inf for a tile's first `skip` keys, and where fewer are known than it has."""
    KEYS: gl.constexpr = scores.shape[AXIS]
    if (known < KEYS) | (skip > 0):
        key = gl.arange(0, KEYS, gl.SliceLayout(1 - AXIS, scores.type.layout))
        visible = (key >= skip) & (key < known)
        scores = gl.where(gl.expand_dims(visible, 1 - AXIS), scores, float("-inf"))
    return scores


@gluon.jit
def spans_of(target, first, members, GROUP: gl.constexpr, W: gl.constexpr, layout: gl.constexpr):
    """Of W queries: the first partial result of their row, those of its own span, all (0: no such
    row).

    Loaded before they are needed, and not touched until then: they come while keys are multiplied.
    """
    member = gl.arange(0, W, layout)
    valid = member < members * GROUP
    span = target[3] + (first + member // GROUP) * 3
    return (
        gl.load(span, mask=valid, other=0, cache_modifier=".cg"),
        gl.load(span + 1, mask=valid, other=0, cache_modifier=".cg"),
        gl.load(span + 2, mask=valid, other=0, cache_modifier=".cg"),
    )


@gluon.jit
def store(
    target, spans, head, first, piece, acc, best, total, GROUP: gl.constexpr, AXIS: gl.constexpr,
    FP8: gl.constexpr,
):  # fmt: skip
    """The result where it is the only one of its row, else a partial one. FP8: of values in FP8,
    whose numbers stand in another order.

    A head's sink counts in the first piece of a row's own tokens, of which each row has one.
    """
    out, partial, partial_lse, _, kv_heads, value_scale, sinks = target
    at, own, parts = spans
    D: gl.constexpr = acc.shape[AXIS]
    layout: gl.constexpr = gl.SliceLayout(AXIS, acc.type.layout)
    total = gl.convert_layout(total, layout)
    lse = gl.convert_layout(best, layout) + gl.log2(total)
    share = 1 / total * value_scale
    member = gl.arange(0, acc.shape[1 - AXIS], layout)
    if sinks is not None:
        of_head = sinks + head * GROUP + member % GROUP
        there = (parts > 0) & (piece == 0)
        sink = gl.load(of_head, mask=there, other=float("-inf")) * 1.4426950408889634
        most = gl.maximum(lse, sink)
        whole = most + gl.log2(gl.exp2(lse - most) + gl.exp2(sink - most))
        share *= gl.exp2(lse - whole)
        lse = whole
    result = acc * gl.expand_dims(share, AXIS)
    dims = gl.arange(0, D, gl.SliceLayout(1 - AXIS, acc.type.layout))
    if FP8:
        dims = number_of(dims)
    dims = gl.expand_dims(dims, 1 - AXIS)
    heads = kv_heads * GROUP
    row = ((first + member // GROUP) * heads + head * GROUP + member % GROUP) * D
    place = out + (gl.expand_dims(row, AXIS) + dims)
    gl.store(place, result.to(out.dtype.element_ty), mask=gl.expand_dims(parts == 1, AXIS))
    # Shared tokens come before the row's own, as they stand in the sequence.
    at += piece // 2 + gl.where(piece % 2 == 0, parts - own, 0)
    cell = at * heads + head * GROUP + member % GROUP
    gl.store(partial_lse + cell, lse, mask=parts > 1)
    place = partial + (gl.expand_dims(cell * D, AXIS) + dims)
    gl.store(place, result, mask=gl.expand_dims(parts > 1, AXIS))
