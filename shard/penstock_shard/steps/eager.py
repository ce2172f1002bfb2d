"""The rows of steps that are launched kernel by kernel, because there is no graph of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penstock_kernels.ops import Device, EagerPlan, Step, StepBatch
from penstock_shard.device import upload
from penstock_shard.steps.graphs import SlotTensors
from penstock_shard.steps.rows import Chunks, Indices
from penstock_shard.steps.slots import HostSlots


@dataclass(slots=True)
class EagerInputs:
    """Rows of a step, decoding slots before chunks: views of static buffers."""

    slot: Tensor  # [rows] int64
    token: Tensor  # [rows] int64
    position: Tensor  # [rows] int64
    decode_rows: int
    step: Step
    sampled_rows: Tensor | None  # rows whose logits are wanted; None: all


class EagerRows:
    """Buffers for as many rows as a step may have."""

    def __init__(self, ops: Device, slots: SlotTensors, book: HostSlots) -> None:
        self._ops, self._slots, self._book = ops, slots, book
        rows, device = book.limits.max_prefill_tokens + book.limits.max_slots, slots.length.device
        self._slot, self._token, self._position = (
            torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(3)
        )

    def decode(self, slots: Indices) -> None:
        """Slots that decode from here on."""
        self._slot[: len(slots)].copy_(upload(slots, self._slot.device))

    def inputs(self, lengths: Indices, chunks: Chunks) -> EagerInputs:
        """The rows of a step, and how they stand in the cache."""
        decode_rows = len(lengths)
        rows = decode_rows + int(chunks.lengths.sum())
        if rows > decode_rows:
            self._load_chunks(decode_rows, rows, chunks)
        context = np.concatenate((lengths, chunks.starts))
        queries = np.concatenate((np.ones_like(lengths), chunks.lengths))
        sequences = decode = self._slot[:decode_rows]
        if len(chunks.slots):
            sequences = torch.cat((sequences, upload(chunks.slots, self._slot.device)))
        if decode_rows:  # they take what their slots hold on the device
            slots = self._slots
            # Of a slot with NO_TOKEN nothing is read any more, but its row is computed.
            token = slots.last_token.index_select(0, decode).clamp_(min=0)
            self._token[:decode_rows].copy_(token)
            self._position[:decode_rows].copy_(slots.length.index_select(0, decode))
        batch = StepBatch(
            slot=self._slot[:rows],
            position=self._position[:rows],
            block_table=self._slots.block_table,
            decode_rows=decode_rows,
            plan=EagerPlan(sequences, context, queries),
        )
        return EagerInputs(
            slot=batch.slot,
            token=self._token[:rows],
            position=batch.position,
            decode_rows=decode_rows,
            step=self._ops.step(batch),
            sampled_rows=self._sampled_rows(decode_rows, chunks),
        )

    def advance(self, inputs: EagerInputs, chunks: Chunks) -> None:
        """Slots now hold what their rows wrote."""
        if not len(chunks.slots):
            self._slots.length.index_copy_(0, inputs.slot, inputs.position + 1)
            return
        rows = inputs.decode_rows
        self._slots.length.index_copy_(0, inputs.slot[:rows], inputs.position[:rows] + 1)
        ends = upload(chunks.starts + chunks.lengths, self._slot.device)
        self._slots.length.index_copy_(0, upload(chunks.slots, self._slot.device), ends)

    def _load_chunks(self, start: int, stop: int, chunks: Chunks) -> None:
        """Slots, tokens and positions of the chunks' rows: known to the host, one upload."""
        spans = zip(chunks.starts, chunks.lengths, strict=True)
        packed = np.empty((3, stop - start), np.int64)
        packed[0] = np.repeat(chunks.slots, chunks.lengths)
        packed[1] = np.concatenate(self._book.chunks_tokens(chunks))
        packed[2] = np.concatenate([np.arange(first, first + count) for first, count in spans])
        slot, token, position = upload(packed, self._slot.device).unbind(0)
        self._slot[start:stop].copy_(slot)
        self._token[start:stop].copy_(token)
        self._position[start:stop].copy_(position)

    def _sampled_rows(self, decode_rows: int, chunks: Chunks) -> Tensor | None:
        if not len(chunks.slots):
            return None
        ends = decode_rows + np.cumsum(chunks.lengths) - 1
        wanted = np.concatenate((np.arange(decode_rows), ends[chunks.complete]))
        return upload(wanted, self._slot.device)
