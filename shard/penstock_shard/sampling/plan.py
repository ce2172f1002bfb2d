"""What the sampled rows of a step need, and what comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.penalties import Penalties
from penstock_kernels.rules import Rules
from penstock_shard.grammars.matching import Row
from penstock_shard.sampling.features import Feature
from penstock_shard.steps.rows import Indices
from penstock_shard.steps.scores import Given, Scores


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a step that go the same way, by what each of them wants, whatever the others do: so
    a row's token depends on nothing but the row."""

    slot_and_row: Tensor  # [2, n] int64: slots, and the rows of the step that are theirs
    penalties: Penalties | None  # None: nor more; `draws` has the rows of the step's logits
    biased: bool  # any of them
    rules: Rules | None
    typical: bool  # all of them; that, torch computes
    k_limit: int | None  # the largest top_k if all have one, else None
    draws: SamplingBatch


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """What the sampled rows of a step need: known to the host before the step starts."""

    slots: Tensor  # [rows] int64
    features: Feature  # of any row
    parts: tuple[RowGroup, ...]
    top_n: Indices  # of each row
    given: Given | None  # None: no row wants to know of any
    held: tuple[Row, ...]  # rows that grammars hold
    held_slots: Indices


@dataclass(frozen=True, slots=True)
class Sampled:
    """Tokens of a step on the device."""

    token: Tensor  # [rows] int64, NO_TOKEN where the logits are not finite
    scores: Scores | None = None  # of them, where any row wants log-probabilities
    lost: bool = False  # there was no memory to choose any


class SampleGraph(Protocol):
    """Draws from logits that stand where it knows."""

    def draw(self, part: RowGroup) -> Tensor:
        """The tokens of a part that has neither penalties nor a bias, counted as generated: [n]
        int64."""
