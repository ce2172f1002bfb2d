"""The decoder's operations as Triton kernels.

Reference: `penstock_kernels.backend.TorchBackend`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.backend import Attention, Heads, Rows
from penstock_kernels.gpu.activation import silu_mul
from penstock_kernels.gpu.argmax import argmax
from penstock_kernels.gpu.blocks import copy_blocks
from penstock_kernels.gpu.decode_attention import DecodeAttention
from penstock_kernels.gpu.decode_plan import DecodePlan
from penstock_kernels.gpu.dispatch import (
    add_product,
    placed_queries,
    skinny_gated_linear,
    skinny_linear,
)
from penstock_kernels.gpu.hopper_decode import HopperDecode, on_hopper
from penstock_kernels.gpu.hopper_plan import HopperPlan
from penstock_kernels.gpu.norm import add_rms_norm, rms_norm
from penstock_kernels.gpu.prefill_attention import prefill_attention, prefill_tiles, query_tile
from penstock_kernels.gpu.rope import Seats, rope_and_write
from penstock_kernels.gpu.sampler import TritonSampler
from penstock_kernels.gpu.slots import leave, take


class TritonBackend(TritonSampler):
    """Nothing here waits for the device, and a step without chunks reads static tensors only.

    angles: [positions, 2, width / 2] float32; max_decode_rows: sequences that decode at once;
    dependent: launch kernels as `gpu.dependent` says. It changes no result. cache: of one layer or
    all, [..., kv_heads, blocks, page, width]: on Hopper, decode attention has a kernel for most of
    its shapes, which takes more rows together; None: unknown.
    """

    def __init__(
        self,
        heads: Heads,
        angles: Tensor,
        eps: float,
        max_decode_rows: int,
        dependent: bool = False,
        cache: Tensor | None = None,
    ) -> None:
        super().__init__(dependent)
        self._heads, self._angles, self._eps = heads, angles, eps
        sizes = (max_decode_rows, heads.heads, heads.kv_heads, heads.width, angles.device)
        self._decode = DecodeAttention(*sizes, dependent)
        self._hopper: HopperDecode | None = None
        if cache is not None and on_hopper(angles.device, cache, heads.heads):
            self._hopper = HopperDecode(*sizes, dependent)
        self.piece_rows = query_tile(heads.heads, heads.kv_heads)
        self.tile_rows = (self._hopper or self._decode).tile_rows

    def pieces(
        self, queries: NDArray[np.int64], context: NDArray[np.int64], first_row: int
    ) -> NDArray[np.int32]:
        return prefill_tiles(queries, context, first_row, self.piece_rows)

    def take(
        self,
        slots: Tensor,
        last_tokens: Tensor,
        lengths: Tensor,
        given: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        return take(slots, last_tokens, lengths, given, self._dependent)

    def leave(
        self,
        slots: Tensor,
        positions: Tensor,
        ends: Tensor | None,
        tokens: Tensor | None,
        last_tokens: Tensor,
        lengths: Tensor,
    ) -> None:
        leave(slots, positions, ends, tokens, last_tokens, lengths, self._dependent)

    def choose(self, logits: Tensor, kept: Tensor, token: Tensor) -> None:
        argmax(logits, kept, token, self._dependent)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return rms_norm(x, weight, eps, dependent=self._dependent)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        return add_rms_norm(x, residual, weight, eps, dependent=self._dependent)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            return F.linear(x, weight, bias)
        return skinny_linear(x, weight, self._dependent)

    def linear_add_rms_norm(
        self, x: Tensor, weight: Tensor, residual: Tensor, gain: Tensor, eps: float
    ) -> Tensor:
        if add_product(x, weight, residual):
            return self.rms_norm(residual, gain, eps)
        product = skinny_linear(x, weight, self._dependent, split=True)
        return add_rms_norm(product, residual, gain, eps, dependent=self._dependent)

    def gated_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None:
            return skinny_gated_linear(x, weight, self._dependent)
        return silu_mul(F.linear(x, weight, bias), dependent=self._dependent)

    def copy_blocks(self, cache: Tensor, source: Tensor, target: Tensor) -> None:
        copy_blocks(cache, source, target)

    def clear_blocks(self, cache: Tensor, blocks: NDArray[np.integer]) -> None:
        """Nothing: what stands behind the end of a sequence is not multiplied."""

    def attention(self, rows: Rows) -> Attention:
        heads, scale = self._heads, self._heads.width**-0.5
        table, decoding = rows.block_table, rows.decode_rows
        pieces = rows.pieces if rows.pieces is not None else self._pieces(rows)
        slots, positions = rows.slot[:decoding], rows.position[:decoding]
        hopper, sharing = self._hopper, rows.sharing
        seats = Seats(rows.slot, rows.position, table, self._angles)
        plans: dict[int | None, DecodePlan] = {}  # by window
        hopper_plan: HopperPlan | None = None

        def attend(
            x: Tensor,
            weight: Tensor,
            bias: Tensor | None,
            cache: Tensor,
            qk_norm: Tensor | None,
            window: int | None,
        ) -> Tensor:
            nonlocal hopper_plan
            # Two launches before it is read: attention does so while the one before it still runs.
            if decoding and hopper is not None and window is None:
                hopper_plan = hopper_plan or hopper.plan(positions, slots, rows.live, sharing)
            elif decoding and window not in plans:
                plans[window] = self._decode.plan(positions, rows.live, sharing, window)
            query = self._place(x, weight, bias, cache, qk_norm, seats)
            out = x.new_empty(len(x), heads.heads * heads.width)
            if hopper is not None and hopper_plan is not None and window is None:
                hopper(query[:decoding], cache, table, out, hopper_plan, scale)
            elif decoding:
                self._decode(
                    query[:decoding], cache, table, slots, positions, out, plans[window], scale,
                    window,
                )  # fmt: skip
            if pieces is not None:
                prefill_attention(
                    query, cache, table, rows.slot, rows.position, pieces, out, scale, window
                )
            return out

        return attend

    def _place(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        cache: Tensor,
        qk_norm: Tensor | None,
        seats: Seats,
    ) -> Tensor:
        """Queries [n, heads, width], normed and rotated; keys and values go to the cache."""
        heads, query = self._heads.heads, None
        if bias is None and qk_norm is None:
            query = placed_queries(x, weight, cache, seats, self._dependent)
        if query is None:
            qkv = self.linear(x, weight, bias)
            norms = None if qk_norm is None else (qk_norm[0], qk_norm[heads])
            rope_and_write(
                qkv, cache, seats.table, seats.slots, seats.positions, seats.angles, heads, norms,
                self._eps, self._dependent,
            )  # fmt: skip
            query = qkv[:, : heads * self._heads.width]
        return query.view(len(x), heads, self._heads.width)

    def _pieces(self, rows: Rows) -> Tensor | None:
        """Pieces of the chunks of a step that the host knows; None where there are none."""
        first = rows.decode_rows
        if len(rows.queries) <= first:
            return None
        pieces = self.pieces(rows.queries[first:], rows.context[first:], first)
        host = torch.from_numpy(pieces)
        if rows.slot.is_cuda:
            host = host.pin_memory()
        return host.to(rows.slot.device, non_blocking=True)
