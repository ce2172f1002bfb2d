"""Penalties of the tokens that a sequence holds, for a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from penstock_kernels.sampler import penalise_frequency, penalise_repetition


@dataclass(frozen=True, slots=True)
class Penalties:
    """Which slots' logits are penalised, and how. All but the first two have a row for each slot.

    slots: [n] int64; rows: [n] int64, where their logits stand; counts: [slots, v] int32, see
    `sampler`; repetition, frequency, presence: [slots] float32, 1, 0 and 0 are off.
    """

    slots: Tensor
    rows: Tensor
    counts: Tensor
    repetition: Tensor
    frequency: Tensor
    presence: Tensor


def penalise(logits: Tensor, penalties: Penalties) -> Tensor:
    """The logits of these slots, penalised. logits: [m, v]. Returns [n, v] float32.

    What no row asks for costs nothing, for which the device is waited for: this is the CPU's.
    """
    slots = penalties.slots
    scores = logits.index_select(0, penalties.rows).float()
    repetition = penalties.repetition.index_select(0, slots)
    frequency = penalties.frequency.index_select(0, slots)
    presence = penalties.presence.index_select(0, slots)
    counts = penalties.counts.index_select(0, slots)
    if bool((repetition != 1).any()):
        scores = penalise_repetition(scores, counts, repetition)
    if bool((frequency != 0).any() | (presence != 0).any()):
        scores = penalise_frequency(scores, counts, frequency, presence)
    return scores
