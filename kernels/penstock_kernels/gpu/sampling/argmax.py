"""The most likely token of each row of logits, and a copy of the logits, in one pass over them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock_kernels.gpu.launch.dependent import launch, wait
from penstock_kernels.sampler import NO_TOKEN

PIECE = 4096  # logits of a program


@triton.jit
def _piece_kernel(
    logits, kept, best, where, n, stride, kept_stride, pieces, PIECE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    wait(PDL)
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = piece * PIECE + tl.arange(0, PIECE)
    inside = column < n
    value = tl.load(logits + row * stride + column, mask=inside, other=float("-inf"))
    tl.store(kept + row * kept_stride + column, value, mask=inside)
    # A comparison with NaN has no winner: the index could be one of the columns beyond the last.
    wide = value.to(tl.float32)
    wide = tl.where(wide == wide, wide, float("inf"))
    most, index = tl.max(wide, 0, return_indices=True)
    tl.store(best + row * pieces + piece, most)
    tl.store(where + row * pieces + piece, piece * PIECE + index)


@triton.jit
def token_of(largest, place, NO_TOKEN: tl.constexpr):
    """The place, if what stands there is a finite number: int64."""
    return tl.where(tl.abs(largest) < float("inf"), place.to(tl.int64), NO_TOKEN)


@triton.jit
def _row_kernel(
    best, where, token, pieces, PIECES: tl.constexpr, NO_TOKEN: tl.constexpr, PDL: tl.constexpr
):
    wait(PDL)
    row = tl.program_id(0)
    piece = tl.arange(0, PIECES)
    value = tl.load(best + row * pieces + piece, mask=piece < pieces, other=float("-inf"))
    most, index = tl.max(value, 0, return_indices=True)
    tl.store(token + row, token_of(most, tl.load(where + row * pieces + index), NO_TOKEN))


def best_of_pieces(logits: Tensor, kept: Tensor, dependent: bool) -> tuple[Tensor, Tensor]:
    """The first of the largest logits of each piece of a row, and a copy of the logits.

    logits, kept: [rows, n] of one dtype, rows may be strided. Returns [rows, pieces] float32 and
    int32: what they are and where in their row they stand. NaN counts as infinite.
    """
    rows, n = logits.shape
    pieces = triton.cdiv(n, PIECE)
    best = torch.empty(rows, pieces, dtype=torch.float32, device=logits.device)
    where = torch.empty(rows, pieces, dtype=torch.int32, device=logits.device)
    _piece_kernel[(rows, pieces)](
        logits, kept, best, where, n, logits.stride(0), kept.stride(0), pieces,
        PIECE=PIECE, num_warps=4, **launch(dependent),
    )  # fmt: skip
    return best, where


def argmax(logits: Tensor, kept: Tensor, token: Tensor, dependent: bool = False) -> None:
    """The first of the largest logits of each row, and the logits, where later kernels find them.

    logits, kept: [rows, n] of one dtype, rows may be strided; token: [rows] int64, NO_TOKEN where
    the largest is not finite.
    """
    best, where = best_of_pieces(logits, kept, dependent)
    best_of_row(best, where, token, dependent)


def best_of_row(best: Tensor, where: Tensor, token: Tensor, dependent: bool = False) -> None:
    """The first of the largest of the rows that `best_of_pieces` returns; token: [rows] int64,
    NO_TOKEN where that is not finite."""
    rows, pieces = best.shape
    _row_kernel[(rows,)](
        best, where, token, pieces,
        PIECES=triton.next_power_of_2(pieces), NO_TOKEN=NO_TOKEN, num_warps=1, **launch(dependent),
    )  # fmt: skip
