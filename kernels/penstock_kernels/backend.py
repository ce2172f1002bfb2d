"""What a decoder asks of a device, and the path that plain torch gives it.

Two paths, one meaning: `TorchBackend` is the CPU's path and the reference of `gpu.backend`, which
does the same with Triton kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.activation import silu_mul
from penstock_kernels.draw import Draws, draw
from penstock_kernels.norm import add_rms_norm, rms_norm
from penstock_kernels.paged_attention import PagedBatch, paged_attention
from penstock_kernels.penalties import Penalties, penalise
from penstock_kernels.rope import rotate_, rotation, write_kv


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads of one rank."""

    heads: int
    kv_heads: int
    width: int  # head_dim

    @property
    def rotated(self) -> int:
        """Query and key heads: those that carry a position."""
        return self.heads + self.kv_heads


@dataclass(frozen=True, slots=True)
class Sharing:
    """Which decode rows share cached blocks, on the device. Rows of a tile are neighbours.

    tile_of_row: [rows] int32, -1: shares nothing. tiles: [count, 3] int32: first row, rows and
    shared tokens (whole blocks) of each tile, as many as a power of two; unused ones have no rows.
    """

    tile_of_row: Tensor
    tiles: Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a step: one for each decoding sequence, then the tokens of the chunks.

    slot, position: [n] int64; block_table: [slots, width] int32, of all slots.
    sequences: [m] int64, the slot of each sequence; context: tokens of each sequence before its
    first row; queries: its rows. The last two are the host's.

    In a captured step the host's arrays are empty, and what differs from step to step stands on the
    device: pieces: [count, 2] int32, first row and rows of each piece of a chunk, no rows where
    there is none; live: [1] int32, how many of the `decode_rows` count; sharing: what decode rows
    may read together. It changes no result, and a backend may ignore it.
    """

    slot: Tensor
    position: Tensor
    block_table: Tensor
    sequences: Tensor
    decode_rows: int
    context: NDArray[np.int64]
    queries: NDArray[np.int64]
    pieces: Tensor | None = None
    live: Tensor | None = None
    sharing: Sharing | None = None


class Attention(Protocol):
    """The attention of one step, called once a layer."""

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        cache: Tensor,
        qk_norm: Tensor | None,
        window: int | None,
    ) -> Tensor:
        """Multiply, norm and rotate, store keys and values, attend.

        x: [n, hidden]; weight: [(heads + 2 * kv_heads) * width, hidden], queries, keys, values;
        bias: of them; cache: one layer's, [2, kv_heads, blocks, block_size, width]; qk_norm:
        [heads + kv_heads, width] weights of the norm of queries and keys; window: tokens that a row
        sees, itself included.
        Returns [n, heads * width].
        """


class Sampler(Protocol):
    """What becomes of logits on one device."""

    def draw(self, logits: Tensor, draws: Draws) -> Tensor:
        """See `draw.draw`."""

    def penalise(self, logits: Tensor, penalties: Penalties) -> Tensor:
        """See `penalties.penalise`."""


class Backend(Sampler, Protocol):
    """The operations of a decoder on one device."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `norm.rms_norm`."""

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `norm.add_rms_norm`."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + b. x: [n, k]; weight: [out, k]; bias: [out]."""

    def linear_add_rms_norm(
        self, x: Tensor, weight: Tensor, residual: Tensor, gain: Tensor, eps: float
    ) -> Tensor:
        """`add_rms_norm` of x W^T. x: [n, k]; weight: [out, k]; residual: [n, out]; gain: [out]."""

    def gated_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """silu(gate) * up of x W^T + b, where W holds the gate's rows, then those of up."""

    def copy_blocks(self, cache: Tensor, source: Tensor, target: Tensor) -> None:
        """cache[..., target[i], :, :] = cache[..., source[i], :, :], in place; no target is a
        source.

        cache: [layers, 2, kv_heads, blocks, block_size, width]; source, target: [n] int64.
        """

    def clear_blocks(self, cache: Tensor, blocks: NDArray[np.integer]) -> None:
        """Prepare blocks for a sequence, if attention here reads behind the end of one: what an
        earlier sequence left there may be NaN, and 0 times NaN is NaN.

        cache: as in `copy_blocks`; blocks: [n], ids.
        """

    def attention(self, rows: Rows) -> Attention:
        """What the attention of a step's layers have in common is done here, once."""


class GraphBackend(Backend, Protocol):
    """A backend whose steps can be captured: what they differ in stands on the device."""

    piece_rows: int  # the most rows of a piece
    tile_rows: int  # decode rows that can read shared tokens together

    def pieces(
        self, queries: NDArray[np.int64], context: NDArray[np.int64], first_row: int
    ) -> NDArray[np.int32]:
        """[count, 2]: first row and rows of each piece, in the order that suits the device.

        queries: rows of each chunk, which follow one another from `first_row` on; context: tokens
        before each chunk.
        """

    def take(
        self,
        slots: Tensor,
        last_tokens: Tensor,
        lengths: Tensor,
        given: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Token and position of each row; see `gpu.slots.take`."""

    def leave(
        self,
        slots: Tensor,
        positions: Tensor,
        ends: Tensor | None,
        tokens: Tensor | None,
        last_tokens: Tensor,
        lengths: Tensor,
    ) -> None:
        """Move slots on; see `gpu.slots.leave`."""

    def choose(self, logits: Tensor, kept: Tensor, token: Tensor) -> None:
        """Keep the logits and each row's most likely token.

        logits, kept: [n, vocabulary]; token: [n] int64.
        """


class TorchSampler:
    """In plain torch."""

    def draw(self, logits: Tensor, draws: Draws) -> Tensor:
        return draw(logits, draws)

    def penalise(self, logits: Tensor, penalties: Penalties) -> Tensor:
        return penalise(logits, penalties)


class TorchBackend(TorchSampler):
    """Everything in plain torch.

    angles: [positions, 2, width / 2] float32, cosines then sines.
    """

    def __init__(self, heads: Heads, angles: Tensor, eps: float, block_size: int) -> None:
        self._heads, self._angles, self._eps = heads, angles, eps
        self._block_size = block_size

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return rms_norm(x, weight, eps)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        return add_rms_norm(x, residual, weight, eps)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def linear_add_rms_norm(
        self, x: Tensor, weight: Tensor, residual: Tensor, gain: Tensor, eps: float
    ) -> Tensor:
        return add_rms_norm(F.linear(x, weight), residual, gain, eps)

    def gated_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return silu_mul(F.linear(x, weight, bias))

    def copy_blocks(self, cache: Tensor, source: Tensor, target: Tensor) -> None:
        cache.index_copy_(3, target, cache.index_select(3, source))

    def clear_blocks(self, cache: Tensor, blocks: NDArray[np.integer]) -> None:
        cache.index_fill_(3, torch.from_numpy(blocks.astype(np.int64)).to(cache.device), 0)

    def attention(self, rows: Rows) -> Attention:
        heads, eps, block = self._heads, self._eps, self._block_size
        width = -(-int((rows.context + rows.queries).max()) // block)
        table = rows.block_table[:, :width].index_select(0, rows.sequences)
        batch = PagedBatch(table, rows.context, rows.queries, block)
        column = rows.position.div(block, rounding_mode="floor")
        location = rows.block_table[rows.slot, column].to(torch.int64)
        location.mul_(block).add_(rows.position).sub_(column.mul_(block))
        cos, sin = rotation(self._angles, rows.position)

        def attend(
            x: Tensor,
            weight: Tensor,
            bias: Tensor | None,
            cache: Tensor,
            qk_norm: Tensor | None,
            window: int | None,
        ) -> Tensor:
            qkv = self.linear(x, weight, bias)
            qkv = qkv.view(-1, heads.rotated + heads.kv_heads, heads.width)
            qk = qkv[:, : heads.rotated]
            if qk_norm is not None:
                qk.copy_(rms_norm(qk, qk_norm, eps))
            rotate_(qk, cos, sin)
            write_kv(cache, qkv[:, heads.heads :], location)
            query = qkv[:, : heads.heads]
            return paged_attention(query, cache, batch, heads.width**-0.5, window)

        return attend
