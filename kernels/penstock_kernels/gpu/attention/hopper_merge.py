"""`decode_merge` behind `hopper_decode`: the partial results of many rows become one each.

A row has few parts then, and there is little to read: what counts are programs and chains of loads.
A program takes some heads of a row, whose parts it loads at once. A thread holds the same dims of
all parts of a head, so that threads never wait for each other. (A program a row and head, whose
warps share the parts, took 5 us a layer of 8B for 64 rows and 25 us for 256.)
"""

from __future__ import annotations

import math

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.language.extra.cuda import gdc_launch_dependents

from penstock_kernels.gpu.launch.dependent import launch
from penstock_kernels.gpu.launch.hopper import wait

VALUES = 8192  # of partial results that a program loads at once: 64 a thread
MANY = 64  # rows from which on there are enough programs of 1024 results; below they have 512


@gluon.jit
def _kernel(
    partial,  # [partials, heads, D] float32
    partial_lse,  # [partials, heads] float32
    spans,  # [rows, 3]
    out,  # [rows, heads, D]
    heads: gl.constexpr,
    D: gl.constexpr,
    HEADS: gl.constexpr,
    PARTS: gl.constexpr,
    WARPS: gl.constexpr,
    PDL: gl.constexpr,
):
    if PDL:  # see `decode_merge`
        gdc_launch_dependents()
    layout: gl.constexpr = gl.BlockedLayout(
        [1, 1, 4], [1, 128 // D, D // 4], [1, WARPS, 1], [2, 1, 0]
    )
    flat: gl.constexpr = gl.SliceLayout(2, layout)  # [parts, heads]
    result: gl.constexpr = gl.SliceLayout(0, layout)  # [heads, dims]
    row, group = gl.program_id(0), gl.program_id(1)
    # The plan was written before the launch before this one: see `dependent`.
    first = gl.load(spans + row * 3, cache_modifier=".cg")
    parts = gl.load(spans + row * 3 + 2, cache_modifier=".cg")
    if (parts <= 1) & (row + group > 0):  # written already; one program waits for all
        return
    wait(PDL)
    if parts <= 1:
        return
    some = gl.expand_dims(gl.arange(0, PARTS, gl.SliceLayout(1, flat)), 1)
    head = gl.expand_dims(group * HEADS + gl.arange(0, HEADS, gl.SliceLayout(0, flat)), 0)
    dims = gl.arange(0, D, gl.SliceLayout(0, gl.SliceLayout(0, layout)))
    dims = gl.expand_dims(gl.expand_dims(dims, 0), 0)
    best = gl.full([HEADS], float("-inf"), gl.float32, gl.SliceLayout(0, flat))
    total = gl.zeros([HEADS], gl.float32, gl.SliceLayout(0, flat))
    acc = gl.zeros([HEADS, D], gl.float32, result)
    for start in range(0, parts, PARTS):
        inside = start + some < parts
        index = (first + start + some) * heads + head
        lse = gl.load(partial_lse + index, mask=inside, other=float("-inf"))
        place = partial + (gl.expand_dims(index * D, 2) + dims)
        part = gl.load(place, mask=gl.expand_dims(inside, 2), other=0.0)
        new = gl.maximum(best, gl.max(lse, 0))
        weight = gl.exp2(lse - gl.expand_dims(new, 0))
        shrink = gl.exp2(best - new)
        best, total = new, total * shrink + gl.sum(weight, 0)
        shrink = gl.convert_layout(shrink, gl.SliceLayout(1, result), assert_trivial=True)
        acc = acc * gl.expand_dims(shrink, 1) + gl.sum(part * gl.expand_dims(weight, 2), 0)
    total = gl.convert_layout(total, gl.SliceLayout(1, result), assert_trivial=True)
    acc = (acc / gl.expand_dims(total, 1)).to(out.dtype.element_ty)
    head = group * HEADS + gl.arange(0, HEADS, gl.SliceLayout(1, result))
    dims = gl.arange(0, D, gl.SliceLayout(0, result))
    place = (row * heads + gl.expand_dims(head, 1)) * D + gl.expand_dims(dims, 0)
    gl.store(out + place, acc)


def merge(
    partial: Tensor, lse: Tensor, spans: Tensor, out: Tensor, rows: int, width: int, dependent: bool
) -> None:
    """`decode_merge.merge` for heads of 64 or 128 dims; the same parameters."""
    heads = out.shape[1] // width
    together = math.gcd(heads, (1024 if rows >= MANY else 512) // width)
    _kernel[(rows, heads // together)](
        partial, lse, spans, out, heads=heads, D=width, HEADS=together,
        PARTS=min(16, VALUES // (together * width)), WARPS=max(1, min(4, together * width // 128)),
        num_warps=max(1, min(4, together * width // 128)), **launch(dependent),
    )  # fmt: skip
