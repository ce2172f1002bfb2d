"""Which tokens a step's rows get: rank 0 chooses, and the others know what needs to be chosen.

The plan of an unchanged decode batch is that of the step before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.ops import Sampler
from penstock_kernels.sampler import NO_TOKEN
from penstock_proto import shard_pb2
from penstock_shard.grammars.templates import Templates
from penstock_shard.ranks.agreement import alone
from penstock_shard.ranks.parallel import Group
from penstock_shard.sampling.features import ONE_BY_ONE, features_of
from penstock_shard.sampling.plan import Sampled, SampleGraph, SamplingPlan
from penstock_shard.sampling.sampling import SamplingState
from penstock_shard.steps.results import PendingResult, StepTimer, to_host
from penstock_shard.steps.rows import Chunks, Indices
from penstock_shard.steps.slots import HostSlots


class TokenChoice:
    """What all slots want of sampling. Without a state where another rank chooses."""

    def __init__(
        self,
        book: HostSlots,
        group: Group,
        device: torch.device,
        sampler: Sampler,
        templates: Templates,
    ) -> None:
        self._book, self._group, self._device = book, group, device
        limits = book.limits
        # Slots that want more than the most likely token: also known where nothing is sampled.
        self._needs_sampling = np.zeros(limits.max_slots, np.bool_)
        self.state = SamplingState(limits, device, sampler, templates) if group.rank == 0 else None
        self._decode_plan: SamplingPlan | None = None  # of the standing decode list

    def admit(self, admission: shard_pb2.Admission, tokens: NDArray[np.int32]) -> None:
        """Note what a slot wants; `load` brings it to the device."""
        slot, wanted = admission.slot, admission.request.sampling
        features = features_of(wanted)
        self._needs_sampling[slot] = admission.grammar > 0 or bool(features)
        if self.state is None:
            return
        generated = len(admission.generated) // 4
        constraint = None
        if admission.grammar:
            again = tokens[len(tokens) - generated :].tolist()
            runs = not features & ONE_BY_ONE
            least = wanted.rules.min_tokens
            constraint = self.state.matching.admit(slot, admission.grammar, again, runs, least)
        self.state.admit(slot, tokens, generated, wanted, constraint)

    def load(self, slots: Indices) -> None:
        """Fill the rows of admitted slots, all at once."""
        if self.state is not None:
            self.state.load(slots)

    def append(self, appended: Sequence[tuple[int, Indices]]) -> None:
        """Count tokens that grammars forced as generated."""
        if self.state is not None:
            self.state.append(appended)

    def forget(self, grammars: Sequence[int]) -> None:
        """Grammars that no sequence uses any more."""
        if self.state is not None:
            self.state.matching.forget(list(grammars))

    def decode_changed(self) -> None:
        """Other slots decode, or the same with other sampling."""
        self._decode_plan = None

    def plan(self, chunks: Chunks) -> SamplingPlan | None:
        """What the rows of a step need. None: nothing is chosen, or not by this rank."""
        if self.state is None:
            return None
        if len(chunks.slots):
            slots = np.concatenate((self._book.decode, chunks.slots[chunks.complete]))
            return self.state.plan(slots) if len(slots) else None
        if self._decode_plan is None:
            self._decode_plan = self.state.plan(self._book.decode)
        return self._decode_plan

    def is_greedy(self, chunks: Chunks) -> bool:
        """Whether all rows of a step want their most likely token and nothing else."""
        if self._needs_sampling[self._book.decode].any():
            return False
        return not (len(chunks.slots) and self._needs_sampling[chunks.slots[chunks.complete]].any())

    def chosen(
        self, logits: Tensor, plan: SamplingPlan, draws: SampleGraph | None = None
    ) -> Sampled:
        """A token for each row; NO_TOKEN where there was no memory to choose one."""
        state = self.state
        assert state is not None, "rank 0"
        sampled = alone(self._group, self._device, lambda: state.sample(logits, plan, draws))
        if sampled is None:
            return Sampled(torch.full_like(plan.slots, NO_TOKEN), lost=True)
        return sampled

    def pending(
        self, step: int, timer: StepTimer, sampled: Sampled | None, plan: SamplingPlan | None
    ) -> PendingResult:
        """Launch the copies of a step's tokens, which grammars wait for too."""
        if sampled is None or plan is None or self.state is None:
            return PendingResult(step, timer)
        sampled, turn = to_host(sampled), None
        if plan.held:
            turn = self.state.matching.turn(sampled.token, plan.held)
        ruled = self.state.rules.slots
        return PendingResult(step, timer, sampled, plan.top_n, plan.given, turn=turn, ruled=ruled)
