"""Draws of tokens, captured as CUDA graphs: some ten small kernels, launched as one.

They read the logits that the graph of a step has left. One at a time their launches took the host
longer than some steps of small models take the device.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial

import torch
from torch import Tensor

from penstock_kernels.backend import Sampler
from penstock_kernels.draw import Draws
from penstock_shard.graphs import Capturer, Replayable
from penstock_shard.sampling import Part, SamplingState

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # rows; then twice as many
# What can be cut by the kernels of a graph: nothing; by mass, or min_p; by count as well.
KINDS = ((False, False, False), (False, True, True), (True, True, True))


class DrawGraphs:
    """Draws for rows that want no penalties. What a row does not want ends its programs at once."""

    def __init__(self, state: SamplingState, sampler: Sampler, logits: Tensor) -> None:
        """logits: [rows, vocabulary], where the graphs of steps leave them."""
        rows, device = len(logits), logits.device
        self._state, self._sampler, self._logits = state, sampler, logits
        self._sizes = tuple(size for size in SIZES if size < rows) + (rows,)
        self._seats = torch.zeros(2, rows, dtype=torch.int64, device=device)
        self._token = torch.zeros(rows, dtype=torch.int64, device=device)
        self._graphs: dict[tuple[int, int], Replayable] = {}
        self._loaded: Part | None = None

    def capture(self, capture: Capturer) -> None:
        """Capture every size, the largest first."""
        for size in reversed(self._sizes):
            for kind in range(len(KINDS)):
                self._graphs[size, kind] = capture(partial(self._step, size, kind))

    def draw(self, part: Part) -> Tensor:
        """The tokens of a part, until the next one: [n] int64."""
        count = part.seats.shape[1]
        size = self._sizes[bisect_left(self._sizes, count)]
        if part is not self._loaded:
            self._seats[:, :count].copy_(part.seats)
            self._seats[0, count:size].fill_(self._state.limits.max_slots)  # greedy: little work
            self._loaded = part
        self._graphs[size, _kind(part.draws)].replay()
        return self._token[:count]

    def _step(self, size: int, kind: int) -> None:
        by_count, by_mass, cuts = KINDS[kind]
        slots, rows = self._seats[:, :size]
        draws = self._state.draws(slots, rows, by_count=by_count, by_mass=by_mass, cuts=cuts)
        self._token[:size].copy_(self._sampler.draw(self._logits, draws))


def _kind(draws: Draws) -> int:
    return draws.cuts + draws.by_count
