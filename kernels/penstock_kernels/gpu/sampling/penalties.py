"""Penalties of the tokens that a sequence holds, in one pass over logits and counts."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.penalties import Penalties

PIECE = 4096  # logits of a program


@triton.jit(do_not_specialize_on_alignment=["rows"])
def _penalise_kernel(
    logits, rows, slots, counts, repetition, frequency, presence, out, n, stride, counts_stride,
    parameter_stride, PIECE: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0)
    slot = tl.load(slots + i)
    column = tl.program_id(1) * PIECE + tl.arange(0, PIECE)
    inside = column < n
    value = tl.load(logits + tl.load(rows + i) * stride + column, mask=inside, other=0.0)
    value = value.to(tl.float32)
    count = tl.load(counts + slot * counts_stride + column, mask=inside, other=0)
    factor = tl.load(repetition + slot * parameter_stride)
    penalised = tl.where(value > 0, value / factor, value * factor)
    value = tl.where(count != 0, penalised, value)
    generated = count >> 1
    value -= generated.to(tl.float32) * tl.load(frequency + slot * parameter_stride)
    value = tl.where(generated > 0, value - tl.load(presence + slot * parameter_stride), value)
    tl.store(out + i.to(tl.int64) * n + column, value, mask=inside)


def penalise(logits: Tensor, penalties: Penalties) -> Tensor:
    """See `penstock_kernels.penalties.penalise`."""
    n, count = logits.shape[1], len(penalties.slots)
    out = torch.empty(count, n, dtype=torch.float32, device=logits.device)
    _penalise_kernel[(count, triton.cdiv(n, PIECE))](
        logits, penalties.rows, penalties.slots, penalties.counts, penalties.repetition,
        penalties.frequency, penalties.presence, out, n, logits.stride(0),
        penalties.counts.stride(0), penalties.repetition.stride(0), PIECE=PIECE, num_warps=4,
    )  # fmt: skip
    return out
