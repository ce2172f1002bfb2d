"""Draws of tokens, captured as CUDA graphs: some ten small kernels, launched as one.

They read the logits that the graph of a step has left. Launched one at a time they took the host
250 to 440 us, beside decode steps of 1,000 us (1B, H100).
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial

import torch
from torch import Tensor

from penstock_kernels.ops import Sampler
from penstock_shard.sampling.plan import RowGroup
from penstock_shard.sampling.sampling import SamplingState
from penstock_shard.steps.graphs import LARGEST_FIRST, Capturer, Replayable

KINDS = (  # any_top_k, any_top_p, any_filter, held
    (False, False, False, False),
    (False, False, True, False),
    (False, True, True, False),
    (True, False, True, False),
    (True, True, True, False),
    (False, False, False, True),
    (True, True, True, True),
)


def sizes_up_to(rows: int) -> list[int]:
    """Rows of graphs: those that are not needed cost little."""
    sizes = [1, 2, 4]
    while sizes[-1] < rows:
        double = 1 << sizes[-1].bit_length()
        sizes += [double, double * 3 // 2]
    return [*(size for size in sizes if size < rows), rows]


class SampleGraphs:
    """Draws for rows that want no penalties. What a row does not want ends its programs at once."""

    def __init__(self, state: SamplingState, sampler: Sampler, logits: Tensor) -> None:
        """logits: [rows, vocabulary], where the graphs of steps leave them."""
        rows, device = len(logits), logits.device
        self._state, self._sampler, self._logits = state, sampler, logits
        self._sizes = sizes_up_to(rows)
        self._slot_and_row = torch.zeros(2, rows, dtype=torch.int64, device=device)
        self._token = torch.zeros(rows, dtype=torch.int64, device=device)
        self._ones = torch.ones_like(self._token)
        self._graphs: dict[tuple[int, bool, bool, bool, bool], Replayable] = {}
        self._loaded: RowGroup | None = None

    @property
    def count(self) -> int:
        """Graphs that `capture` makes."""
        return len(self._sizes) * len(KINDS)

    def capture(self, capture: Capturer, sizes: slice = LARGEST_FIRST) -> int:
        """Capture all sizes, or some of them. Returns how many graphs that were."""
        for size in self._sizes[sizes]:
            for kind in KINDS:
                self._graphs[size, *kind] = capture(partial(self._step, size, *kind))
        return len(self._sizes[sizes]) * len(KINDS)

    def draw(self, part: RowGroup) -> Tensor:
        """The tokens of a part, until the next one: [n] int64."""
        count = part.slot_and_row.shape[1]
        size = self._sizes[bisect_left(self._sizes, count)]
        if part is not self._loaded:
            self._slot_and_row[:, :count].copy_(part.slot_and_row)
            self._slot_and_row[0, count:size].fill_(
                self._state.limits.max_slots
            )  # greedy: little work
            self._loaded = part
        wanted = part.draws
        held = wanted.mask is not None
        self._graphs[size, wanted.any_top_k, wanted.any_top_p, wanted.any_filter, held].replay()
        return self._token[:count]

    def _step(
        self, size: int, any_top_k: bool, any_top_p: bool, any_filter: bool, held: bool
    ) -> None:
        slots, rows = self._slot_and_row[:, :size]
        draws = self._state.draws(
            slots, rows, any_top_k=any_top_k, any_top_p=any_top_p, any_filter=any_filter, held=held
        )
        self._token[:size].copy_(self._sampler.draw(self._logits, draws))
        self._state.generated.index_add_(0, slots, self._ones[:size])
