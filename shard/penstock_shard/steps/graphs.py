"""Decode steps as CUDA graphs: one launch a step instead of some 300.

A graph is captured for each bucket of rows and holds for all lengths, because it reads nothing but
static tensors. Rows that fill a bucket up belong to the scratch slot, whose blocks are block 0.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from penstock_kernels.ops import Activation, GraphDevice, Step, StepBatch
from penstock_shard.device import upload
from penstock_shard.log import Progress
from penstock_shard.model.layers import VocabularyHead
from penstock_shard.model.model import Model
from penstock_shard.steps.rows import Indices
from penstock_shard.steps.sharing import SharingTensors

LARGEST_FIRST = slice(None, None, -1)  # all of the sizes, which ascend
SMALL = (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64)


def buckets_for(rows: int) -> list[int]:
    """Sizes up to `rows`: few enough to capture in seconds, near enough to waste little.

    Small batches read weights, so padding costs them next to nothing; above 64 rows a bucket is at
    most an eighth too large.
    """
    sizes = [*SMALL, *range(80, 128, 16), *range(128, 256, 32), *range(256, 1025, 64)]
    return [*(size for size in sizes if size < rows), rows]


@dataclass(frozen=True, slots=True)
class GraphSizes:
    """Which steps are to be graphs."""

    decode: tuple[int, ...]  # rows, ascending; empty: no step of any kind is one
    prompt_tokens: int = sys.maxsize  # of a step with chunks, at most

    def __str__(self) -> str:
        if not self.decode:
            return "no steps"
        return f"up to {self.decode[-1]} rows and {self.prompt_tokens} prompt tokens"

    def share(self, part: float) -> GraphSizes:
        """Of both kinds those of up to such a part of the rows; 0: none."""
        rows = part * self.decode[-1] if self.decode else 0
        decode = tuple(size for size in self.decode if size <= rows)
        return GraphSizes(decode, int(part * self.prompt_tokens) if decode else 0)


@dataclass(slots=True)
class SlotTensors:
    """What the device knows of each slot; the row behind the last one belongs to padding."""

    last_token: Tensor  # [slots + 1] int64
    length: Tensor  # [slots + 1] int64: tokens in the cache
    # Zero is the scratch block: where nothing was granted, nothing of value is overwritten.
    block_table: Tensor  # [slots + 1, width] int32

    @property
    def scratch(self) -> int:
        """The slot of padding rows."""
        return len(self.length) - 1

    @staticmethod
    def empty(slots: int, width: int, device: torch.device) -> SlotTensors:
        """No sequence in any slot."""
        return SlotTensors(
            last_token=torch.zeros(slots + 1, dtype=torch.int64, device=device),
            length=torch.zeros(slots + 1, dtype=torch.int64, device=device),
            block_table=torch.zeros(slots + 1, width, dtype=torch.int32, device=device),
        )


@dataclass(slots=True)
class StepOutputs:
    """Where the graphs leave a step's outcome, until the next one: a row for each that samples."""

    token: Tensor  # [rows] int64
    logits: Tensor  # [rows, vocab_size]; no rows where this rank does not choose
    everywhere: bool  # every rank has the most likely tokens

    @staticmethod
    def empty(
        rows: int,
        vocab_size: int,
        samples: bool,
        everywhere: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> StepOutputs:
        """Logits are wanted only where tokens are chosen."""
        return StepOutputs(
            token=torch.zeros(rows, dtype=torch.int64, device=device),
            logits=torch.empty(rows if samples else 0, vocab_size, dtype=dtype, device=device),
            everywhere=everywhere,
        )

    def keep(
        self, hidden: Activation, head: VocabularyHead, step: Step, ops: GraphDevice
    ) -> Tensor | None:
        """Keep the logits of the first rows and their most likely tokens. Returns those, or None
        where this rank does not know them."""
        logits = head(hidden, step)
        if logits is None:
            return None
        rows = len(logits)
        ops.argmax_into(logits, self.logits[:rows], self.token[:rows])
        return self.token[:rows]


class Replayable(Protocol):
    """A captured step."""

    def replay(self) -> None:
        """Launch it once more."""


Capturer = Callable[[Callable[[], None]], Replayable]


class GraphKind(Protocol):
    """Graphs of one kind of step, of several sizes."""

    @property
    def count(self) -> int:
        """Graphs of all sizes."""

    def capture(self, capture: Capturer, sizes: slice = LARGEST_FIRST) -> int:
        """Capture those of some sizes, which ascend. Returns how many graphs that were."""


class Capture:
    """Makes graphs of steps, which share one memory: the largest step should come first."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """The graph of a step, which is run once before."""
        self._stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            step()
            torch.cuda.synchronize()
            # Other threads (results, gRPC) may call CUDA meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                step()
        torch.cuda.current_stream().wait_stream(self._stream)
        return graph


class CountedCapture:
    """Makes graphs as another one does, and reports how many of those that are expected."""

    def __init__(self, capture: Capturer) -> None:
        self._capture = capture
        self._progress: Progress | None = None

    def expect(self, graphs: int) -> None:
        """So many are going to be made."""
        self._progress = Progress("capture", graphs, "graphs")

    def __call__(self, step: Callable[[], None]) -> Replayable:
        graph = self._capture(step)
        if self._progress is not None:
            self._progress.advance(1)
        return graph


class DecodeGraphs:
    """The decode step of one rank, captured.

    A replay computes the logits of the rows, picks each row's most likely token, stores it as the
    slot's last one and moves the slot on by one token.
    """

    def __init__(
        self,
        model: Model,
        ops: GraphDevice,
        slots: SlotTensors,
        cache: Tensor,
        outputs: StepOutputs,
        sharing: SharingTensors,
        sizes: tuple[int, ...],
    ) -> None:
        self._model, self._ops, self._slots, self._cache = model, ops, slots, cache
        self._outputs, self._sharing, self._scratch = outputs, sharing, slots.scratch
        self._buckets = sizes  # ascending
        device = slots.length.device
        self.slot = torch.full((sizes[-1],), self._scratch, dtype=torch.int64, device=device)
        self._graphs: dict[int, Replayable] = {}

    @property
    def count(self) -> int:
        """Graphs that `capture` makes."""
        return len(self._buckets)

    def capture(self, capture: Capturer, sizes: slice = LARGEST_FIRST) -> int:
        """Capture all buckets, or some of them. Returns how many graphs that were."""
        for bucket in self._buckets[sizes]:
            self._graphs[bucket] = capture(partial(self._step, bucket))
        return len(self._buckets[sizes])

    def fits(self, rows: int) -> bool:
        """Whether there is a graph for so many rows."""
        return 0 < rows <= self._buckets[-1]

    def load(self, decode: Indices) -> None:
        """The slots that the next replays decode."""
        bucket = self._bucket(len(decode))
        padded = np.full(bucket, self._scratch, np.int64)
        padded[: len(decode)] = decode
        self.slot[:bucket].copy_(upload(padded, self.slot.device))

    def replay(self, rows: int) -> None:
        """One step of the loaded slots."""
        self._graphs[self._bucket(rows)].replay()

    def _bucket(self, rows: int) -> int:
        return self._buckets[bisect_left(self._buckets, rows)]

    def _step(self, rows: int) -> None:
        slots, slot = self._slots, self.slot[:rows]
        token, position = self._ops.read_slots(slot, slots.last_token, slots.length, None)
        batch = StepBatch(
            slot=slot,
            position=position,
            block_table=slots.block_table,
            decode_rows=rows,
            sharing=self._sharing.view(rows),
        )
        step = self._ops.step(batch)
        hidden = self._model.forward(step, token, position, self._cache)
        chosen = self._outputs.keep(hidden, self._model.head, step, self._ops)
        self._ops.advance_slots(slot, position, None, chosen, slots.last_token, slots.length)
