"""The warps of `hopper_prefill` that widen a cache in FP8 for those that multiply."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from penstock_kernels.gpu.attention.hopper_kv8 import widen_to, words_of
from penstock_kernels.gpu.attention.hopper_prefill_turns import span, task, turns


@gluon.jit
def widen(
    plan, ring, wide_ring, window,
    N: gl.constexpr, STAGES: gl.constexpr, HELD: gl.constexpr, FP8: gl.constexpr,
    WINDOW: gl.constexpr,
):  # fmt: skip
    """The four warps that take tiles in FP8 to the ring in float16. What comes next is read before
    what was read is widened."""
    k_from, v_from, k_there, v_there, k_taken, v_taken = ring
    k_tiles, v_tiles, k_full, v_full, k_empty, v_empty = wide_ring
    done = 0
    for turn in range(turns(plan)):
        _, _, rows, start = task(plan, turn)
        begin, length = span(start, rows, window, N, WINDOW)
        if begin < length:
            keys = words_of(k_from.index(done % HELD), k_there.index(done % HELD), done // HELD & 1)
            for token in range(begin, length, N):
                stage, phase = done % STAGES, (done // STAGES + 1) & 1
                held, there = done % HELD, done // HELD & 1
                values = words_of(v_from.index(held), v_there.index(held), there)
                widen_to(
                    k_tiles.index(stage), keys, k_taken.index(held), k_full.index(stage),
                    k_empty.index(stage), phase, FP8,
                )  # fmt: skip
                done += 1
                following, there = done % HELD, done // HELD & 1
                if token + N < length:
                    keys = words_of(k_from.index(following), k_there.index(following), there)
                widen_to(
                    v_tiles.index(stage), values, v_taken.index(held), v_full.index(stage),
                    v_empty.index(stage), phase, FP8,
                )  # fmt: skip
