"""Steps that compute prompt chunks beside the decode rows, as CUDA graphs.

Launched one kernel at a time such a step keeps the host busy for 14 ms (8B, H100): as long as the
device needs for 512 tokens. So there is a graph for each bucket of rows. Everything that differs
from step to step stands in one buffer of integers, which a single copy fills before the replay.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.ops import GraphDevice, StepBatch
from penstock_shard.device import upload
from penstock_shard.model.model import Model
from penstock_shard.steps.graphs import (
    LARGEST_FIRST,
    Capturer,
    Replayable,
    SlotTensors,
    StepOutputs,
)
from penstock_shard.steps.results import StepTimer
from penstock_shard.steps.rows import Chunks, Indices
from penstock_shard.steps.sharing import SharingTensors

MOST_ROWS = 6144  # beyond, launching takes less time than computing
# Sizes whose time the router is told: it plans steps of the cheapest.
COSTED = (128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1536, 1792, 2048, 3072, 4096)
COST_ROUNDS = 2


def buckets_for(rows: int) -> list[int]:
    """Sizes up to `rows`, from 384 on by tiles of 128 rows: what lies between costs as much."""
    sizes = [16, *range(32, 192, 32), 192, 256, 320, *range(384, 2048, 128)]
    sizes += range(2048, MOST_ROWS + 1, 256)
    rows = min(rows, MOST_ROWS)
    return [*(size for size in sizes if size < rows), rows]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a bucket's input stand in the buffer of integers."""

    rows: int
    sequences: int  # the most that may take part
    pieces: int  # of chunks, for attention

    @property
    def size(self) -> int:
        """int64 numbers in all."""
        return 3 * self.rows + self.sequences + self.pieces + 1

    def split(self, buffer: Tensor) -> MixedInputs:
        """Views of the first `size` numbers."""
        rows, end, pieces, live = torch.split_with_sizes(
            buffer[: self.size], (3 * self.rows, self.sequences, self.pieces, 1)
        )
        slot, token, position = rows.view(3, self.rows).unbind(0)
        low_and_high = pieces.view(torch.int32).view(self.pieces, 2)
        return MixedInputs(slot, token, position, end, low_and_high, live.view(torch.int32)[:1])


@dataclass(frozen=True, slots=True)
class MixedInputs:
    """What a step reads: decode rows first, then the chunks, then rows of the scratch slot."""

    slot: Tensor  # [rows] int64
    token: Tensor  # [rows] int64; -1: the last token of the slot
    position: Tensor  # [rows] int64; of decode rows the slot knows it
    end: Tensor  # [sequences] int64: the last row of each sequence, those that sample first
    pieces: Tensor  # [pieces, 2] int32: first row and rows of each piece of a chunk
    live: Tensor  # [1] int32: decode rows


@dataclass(frozen=True, slots=True)
class MixedStep:
    """What the host knows of a step."""

    decode: Indices  # slots
    chunks: Chunks
    tokens: Sequence[NDArray[np.int32]]  # of each chunk
    pieces: NDArray[np.int32]  # [pieces, 2]

    @property
    def rows(self) -> int:
        """Decode rows and tokens of chunks."""
        return len(self.decode) + int(self.chunks.lengths.sum())

    def pack(self, layout: Layout, scratch: int) -> NDArray[np.int64]:
        """The integers of a layout that has room for the step."""
        packed = np.zeros(layout.size, np.int64)
        slot, token, position = packed[: 3 * layout.rows].reshape(3, layout.rows)
        decode, chunks, rows = len(self.decode), self.chunks, self.rows
        slot[:decode] = self.decode
        slot[decode:rows] = np.repeat(chunks.slots, chunks.lengths)
        slot[rows:] = scratch
        token[:decode] = -1
        token[decode:rows] = np.concatenate(self.tokens)
        first = decode + np.cumsum(chunks.lengths) - chunks.lengths
        position[decode:rows] = np.arange(decode, rows)
        position[decode:rows] += np.repeat(chunks.starts - first, chunks.lengths)
        ends = first + chunks.lengths - 1
        end = packed[3 * layout.rows :]
        end[:decode] = np.arange(decode)
        sequences = decode + len(ends)
        end[decode:sequences] = np.concatenate((ends[chunks.complete], ends[~chunks.complete]))
        # The last one again: what is left in a slot is of the first.
        end[sequences : layout.sequences] = end[sequences - 1]
        pieces = end[layout.sequences :]
        pieces[: len(self.pieces)] = np.ascontiguousarray(self.pieces).view(np.int64).ravel()
        packed[-1] = decode
        return packed


class MixedGraphs:
    """The mixed step of one rank, captured.

    A replay computes all rows, picks the most likely next token of each sequence, stores it as its
    slot's last one and moves the slot on. For a chunk that ends before its prompt does that token
    means nothing: the slot's last chunk overwrites it.
    """

    def __init__(
        self,
        model: Model,
        ops: GraphDevice,
        slots: SlotTensors,
        cache: Tensor,
        outputs: StepOutputs,
        sharing: SharingTensors,
        max_prefill_tokens: int,
        max_chunks: int,
    ) -> None:
        self._model, self._ops, self._slots, self._cache = model, ops, slots, cache
        self._outputs, self._sharing, self._scratch = outputs, sharing, slots.scratch
        self._buckets = buckets_for(max_prefill_tokens + slots.scratch)
        self._max_chunks = max_chunks
        device = slots.length.device
        size = max(self._layout(rows).size for rows in self._buckets)
        self._buffer = torch.zeros(size, dtype=torch.int64, device=device)
        self._graphs: dict[int, Replayable] = {}

    @property
    def count(self) -> int:
        """Graphs that `capture` makes."""
        return len(self._buckets)

    def capture(self, capture: Capturer, sizes: slice = LARGEST_FIRST) -> int:
        """Capture all buckets, or some of them. Returns how many graphs that were."""
        for bucket in self._buckets[sizes]:
            self._load_nothing(bucket)
            self._graphs[bucket] = capture(partial(self.run, bucket))
        return len(self._buckets[sizes])

    def costs(self) -> dict[int, float]:
        """Seconds of a step by its rows, all of them of the scratch slot: of products and the like;
        attention costs by contexts. The shortest of a few, as what else happens adds to it."""
        buckets = [bucket for bucket in COSTED if bucket in self._graphs]
        for bucket in buckets[:1]:
            self._seconds(bucket)  # other ranks may come later, and the first one waits for them
        times = [[self._seconds(bucket) for bucket in buckets] for _ in range(COST_ROUNDS)]
        return dict(zip(buckets, map(min, zip(*times, strict=True)), strict=True))

    def _seconds(self, bucket: int) -> float:
        self._load_nothing(bucket)
        timer = StepTimer(self._buffer.device)
        self._graphs[bucket].replay()
        timer.stop()
        return timer.wait() / 1e9

    def _load_nothing(self, bucket: int) -> None:
        self._buffer.zero_()  # another bucket's numbers mean something else here
        self._layout(bucket).split(self._buffer).slot.fill_(self._scratch)

    def step(
        self, decode: Indices, chunks: Chunks, tokens: Sequence[NDArray[np.int32]]
    ) -> MixedStep:
        """A step as `fits` and `replay` want it. tokens: of each chunk."""
        pieces = self._ops.pieces(chunks.lengths, chunks.starts, len(decode))
        return MixedStep(decode, chunks, tokens, pieces)

    def fits(self, step: MixedStep) -> bool:
        """Whether there is a graph for such a step."""
        return self._bucket(step) is not None

    def load(self, step: MixedStep) -> int:
        """Fill the buffer with a step that fits. Returns its bucket."""
        bucket = self._bucket(step)
        assert bucket is not None, "a step that fits"
        packed = step.pack(self._layout(bucket), self._scratch)
        self._buffer[: len(packed)].copy_(upload(packed, self._buffer.device))
        return bucket

    def replay(self, step: MixedStep) -> None:
        """Compute a step that fits. The outputs' rows are in the order of `MixedInputs.end`."""
        self._graphs[self.load(step)].replay()

    def sampled_slots(self, step: MixedStep, count: int) -> Tensor:
        """[count] int64: the slots of the first so many rows of the outputs."""
        bucket = self._bucket(step)
        assert bucket is not None, "a step that fits"
        inputs = self._layout(bucket).split(self._buffer)
        return inputs.slot.index_select(0, inputs.end[:count])

    def _bucket(self, step: MixedStep) -> int | None:
        """The smallest one with room for the step."""
        sequences = len(step.decode) + len(step.chunks.slots)
        for rows in self._buckets[bisect_left(self._buckets, step.rows) :]:
            layout = self._layout(rows)
            if sequences <= layout.sequences and len(step.pieces) <= layout.pieces:
                return rows
        return None

    def _layout(self, rows: int) -> Layout:
        # A step has eight prompt tokens for a decode row, or is small: logits are not for all rows.
        # Still a bucket must not be too large for its few prompt tokens: without room for 256
        # sequences in 512 rows, the ends of prompts beside 256 decode rows would take 1,024.
        sequences = min(rows, max(rows // 4 + 16, 256 if rows >= 512 else 144), self._scratch)
        # Those that the rows alone make, and one more a chunk.
        pieces = rows // self._ops.piece_rows + min(rows, self._max_chunks)
        return Layout(rows, sequences, pieces)

    def run(self, bucket: int) -> None:
        """The step that is captured."""
        layout, slots = self._layout(bucket), self._slots
        inputs = layout.split(self._buffer)
        given = (inputs.token, inputs.position)
        token, position = self._ops.read_slots(inputs.slot, slots.last_token, slots.length, given)
        batch = StepBatch(
            slot=inputs.slot,
            position=position,
            block_table=slots.block_table,
            decode_rows=layout.sequences,
            pieces=inputs.pieces,
            live=inputs.live,
            sharing=self._sharing.view(layout.sequences),
        )
        step = self._ops.step(batch)
        ends = self._model.forward(step, token, position, self._cache, inputs.end)
        chosen = self._outputs.keep(ends, self._model.head, step, self._ops)
        self._ops.advance_slots(
            inputs.slot, position, inputs.end, chosen, slots.last_token, slots.length
        )
