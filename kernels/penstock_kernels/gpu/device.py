"""A device whose operations are our kernels. Reference: `penstock_kernels.reference.device`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.gpu.attention.decode_attention import DecodeAttention
from penstock_kernels.gpu.attention.hopper_decode import HopperDecode, supports_hopper_decode
from penstock_kernels.gpu.attention.prefill_attention import prefill_tiles, query_tile
from penstock_kernels.gpu.products.table import FASTEST, ProductTable
from penstock_kernels.gpu.sampling.argmax import argmax
from penstock_kernels.gpu.step.blocks import copy_blocks
from penstock_kernels.gpu.step.slots import advance_slots, read_slots
from penstock_kernels.gpu.step.step import TritonStep
from penstock_kernels.ops import AttentionSpec, StepBatch


class KernelDevice:
    """What devices of ours have in common: all but how products and attention are computed.

    piece_rows, tile_rows: see `ops.GraphDevice`.
    """

    def __init__(
        self,
        ropes: tuple[Tensor, ...],
        dependent: bool,
        products: ProductTable,
        piece_rows: int,
        tile_rows: int,
    ) -> None:
        self.ropes, self.dependent, self.products = ropes, dependent, products
        self.piece_rows, self.tile_rows = piece_rows, tile_rows

    def pieces(
        self, queries: NDArray[np.int64], context: NDArray[np.int64], first_row: int
    ) -> NDArray[np.int32]:
        return prefill_tiles(queries, context, first_row, self.piece_rows)

    def read_slots(
        self,
        slots: Tensor,
        last_tokens: Tensor,
        lengths: Tensor,
        given: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        return read_slots(slots, last_tokens, lengths, given, self.dependent)

    def advance_slots(
        self,
        slots: Tensor,
        positions: Tensor,
        ends: Tensor | None,
        tokens: Tensor | None,
        last_tokens: Tensor,
        lengths: Tensor,
    ) -> None:
        advance_slots(slots, positions, ends, tokens, last_tokens, lengths, self.dependent)

    def argmax_into(self, logits: Tensor, kept: Tensor, token: Tensor) -> None:
        argmax(logits, kept, token, self.dependent)

    def copy_blocks(self, cache: Tensor, source: Tensor, target: Tensor) -> None:
        copy_blocks(cache, source, target)

    def clear_blocks(self, cache: Tensor, blocks: NDArray[np.integer]) -> None:
        """Nothing: what stands behind the end of a sequence is not multiplied."""


def shape_of(specs: Sequence[AttentionSpec]) -> tuple[int, int, int]:
    """Heads, KV heads and width of all layers. Raises ValueError where they differ."""
    shapes = {spec.shape for spec in specs}
    if len(shapes) != 1:
        raise ValueError(f"attention layers of several shapes are not supported: {shapes}")
    return shapes.pop()


class TritonDevice(KernelDevice):
    """Nothing here waits for the device, and a step without chunks reads static tensors only.

    specs: the kinds of attention layers, which are alike in heads and widths; ropes: tables of
    [positions, 2, rotated / 2] float32; max_decode_rows: sequences that decode at once; cache: of
    one layer or all, [..., kv_heads, blocks, page, width]: on Hopper, decode attention has a kernel
    for most of its shapes, which takes more rows together, but no soft cap; None: unknown.
    dependent: launch kernels as `dependent` says. It changes no result. dtype: of queries;
    None: that of the cache.

    Raises ValueError for kinds of layers that differ in shape.
    """

    def __init__(
        self,
        specs: Sequence[AttentionSpec],
        ropes: tuple[Tensor, ...],
        max_decode_rows: int,
        cache: Tensor | None = None,
        dependent: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        heads, kv_heads, width = shape_of(specs)
        device = ropes[0].device
        sizes = (max_decode_rows, heads, kv_heads, width, device, dependent)
        self.decode = DecodeAttention(*sizes)
        self.hopper: HopperDecode | None = None
        capped = any(spec.soft_cap is not None for spec in specs)
        half = dtype in (None, torch.bfloat16, torch.float16)
        if (
            cache is not None
            and half
            and not capped
            and supports_hopper_decode(device, cache, heads)
        ):
            self.hopper = HopperDecode(*sizes)
        tile_rows = (self.hopper or self.decode).tile_rows
        super().__init__(ropes, dependent, FASTEST, query_tile(heads, kv_heads), tile_rows)

    def step(self, batch: StepBatch) -> TritonStep:
        return TritonStep(self, batch)
