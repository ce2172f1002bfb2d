"""Scores of the tokens of prompts that ask for them: how likely each was behind those before it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from penstock_kernels.ops import Activation, Step
from penstock_shard.device import upload
from penstock_shard.model.model import Model
from penstock_shard.ranks.agreement import alone
from penstock_shard.ranks.parallel import Group
from penstock_shard.sampling.sampling import SamplingState
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.results import PromptPart
from penstock_shard.steps.rows import Chunks, Indices
from penstock_shard.steps.scores import Scores, columns, joined, scores_of, scoring_bytes
from penstock_shard.steps.slots import HostSlots

ROWS = 256  # at once: 4096 rows of 128k float32 logits would take 2 GiB


@dataclass(frozen=True, slots=True)
class PromptScorer:
    """Computes them from what a step leaves behind its last layer."""

    model: Model
    group: Group
    book: HostSlots
    limits: ShardLimits
    sampling: SamplingState | None  # rank 0's
    rows_alone: bool  # as of `ops.Sampler`
    device: torch.device

    def bytes_of(self, chunks: Chunks) -> int:
        """The most that it holds of this rank's memory at once; 0 where no chunk asks."""
        rows = min(int(self.book.scored(chunks)[1].sum()), ROWS)
        vocabulary, itemsize = self.limits.vocab_size, self.model.dtype.itemsize
        if self.sampling is not None and rows:
            return scoring_bytes(rows, vocabulary, itemsize)
        return rows * -(-vocabulary // self.group.world_size) * itemsize  # its own columns

    def parts(
        self, hidden: Activation, step: Step, decode_rows: int, chunks: Chunks
    ) -> list[PromptPart]:
        """Of the chunks that ask; none on other ranks than 0. A collective where one asks.

        Each row of a chunk predicts the token after it, except the last of a whole prompt. hidden:
        of the step's rows, those that decode before those of chunks.
        """
        starts, counts = self.book.scored(chunks)
        asked = np.flatnonzero(counts)
        if not len(asked):
            return []
        slots, starts, counts = chunks.slots[asked], starts[asked], counts[asked]
        before = np.cumsum(chunks.lengths) - chunks.lengths  # rows of the chunks in front
        first = decode_rows + before[asked] + starts - chunks.starts[asked]
        places = list(zip(slots, starts, counts, strict=True))
        targets = [self.book.tokens[slot][start + 1 : start + 1 + n] for slot, start, n in places]
        rows = [np.arange(row, row + count) for row, count in zip(first, counts, strict=True)]
        top_n = self.book.prompt_top_n[slots]
        given = None
        if self.sampling is not None:
            given = self.sampling.given(np.repeat(slots, counts))
        scores = self._scores(
            hidden,
            step,
            np.concatenate(rows),
            np.concatenate(targets),
            int(top_n.max()),
            None if given is None else given.tokens,
        )
        if self.sampling is None:
            return []
        if scores is None:
            return [PromptPart(int(slot), int(start), None, []) for slot, start, _ in places]
        ends = np.cumsum(counts)
        width = 0 if scores.top_token is None else scores.top_token.shape[1]
        parts = []
        for (slot, start, count), end, n in zip(places, ends.tolist(), top_n, strict=True):
            more, given_width = (0, 0) if given is None else (given.counts[end - 1], given.width)
            own = columns(int(n), int(more), width, given_width)
            parts.append(PromptPart(int(slot), int(start), scores.part(end - count, end), own))
        return parts

    def _scores(
        self,
        hidden: Activation,
        step: Step,
        rows: Indices,
        targets: Indices,
        top_n: int,
        given: Tensor | None,
    ) -> Scores | None:
        """Scores of targets[i] after row rows[i], on the host; None on other ranks, and where
        there was no memory for them."""
        row = upload(rows, self.device)
        target = upload(targets.astype(np.int64), self.device)
        pieces: list[Scores] | None = []
        for start in range(0, len(row), ROWS):
            some = slice(start, start + ROWS)
            logits = self.model.head(hidden.select(row[some]), step)
            if logits is not None and pieces is not None:
                others = None if given is None else given[some]
                wanted = (logits, target[some], top_n, others, self.rows_alone)
                piece = alone(self.group, self.device, partial(scores_of, *wanted))
                pieces = None if piece is None else [*pieces, piece]
        found = pieces or []
        return alone(self.group, self.device, lambda: joined(found).on_host()) if found else None
