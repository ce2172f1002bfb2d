"""The rows of a step: those of its chunks, and those of its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chunks:
    """The prefill rows of a step, in the command's order."""

    slots: Indices
    starts: Indices  # tokens computed before
    lengths: Indices
    complete: NDArray[np.bool_]  # chunk reaches the end of the slot's tokens, so it samples

    def where(self, kept: NDArray[np.bool_]) -> Chunks:
        """Some of them."""
        return Chunks(self.slots[kept], self.starts[kept], self.lengths[kept], self.complete[kept])


@dataclass(frozen=True, slots=True)
class ResultRows:
    """The rows of a step's result, as its command names them."""

    slots: Indices
    computed: NDArray[np.bool_] | None  # all but those of refused slots; None: all

    def without(self) -> ResultRows:
        """The same rows, of which none is computed."""
        return ResultRows(self.slots, np.zeros(len(self.slots), np.bool_))

    @property
    def places(self) -> Indices:
        """Rows of the result that the computed ones are."""
        every = np.arange(len(self.slots))
        return every if self.computed is None else every[self.computed]

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """What was computed, one a row; zero for the other rows."""
        if self.computed is None:
            return values
        spread = np.zeros(len(self.slots), values.dtype)
        spread[self.computed] = values
        return spread
