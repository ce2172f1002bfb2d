"""Sampling state of all slots on the device, and the choice of a step's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels import noise, sampler
from penstock_kernels.draw import SamplingBatch
from penstock_kernels.ops import Sampler
from penstock_kernels.penalties import Penalties
from penstock_kernels.rules import keep_rules
from penstock_proto import shard_pb2
from penstock_shard.device import upload
from penstock_shard.grammars.bits import Bits
from penstock_shard.grammars.matching import Constraint, Matching
from penstock_shard.grammars.templates import Templates
from penstock_shard.sampling.bias import BiasTable
from penstock_shard.sampling.features import (
    COLUMNS,
    FILTERS,
    PENALTIES,
    SHAPED,
    TYPICAL,
    Feature,
    features_of,
)
from penstock_shard.sampling.plan import RowGroup, Sampled, SampleGraph, SamplingPlan
from penstock_shard.sampling.token_rules import TokenRuleBook
from penstock_shard.sampling.typical import draw_typical
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.rows import Indices
from penstock_shard.steps.scores import Given, scores_of


class SamplingState:
    """One row a slot; the row behind the last slot belongs to padding."""

    def __init__(
        self,
        limits: ShardLimits,
        device: torch.device,
        sampler: Sampler,
        templates: Templates | None = None,
    ) -> None:
        self._sampler = sampler
        self.bits = Bits(limits.max_slots, limits.vocab_size, device)
        self.matching = Matching(templates or Templates(limits.vocab_size), self.bits)
        rows, self.device, self.limits = limits.max_slots + 1, device, limits
        self.parameters = torch.zeros(rows, len(COLUMNS), device=device)
        self.top_k = torch.zeros(rows, dtype=torch.int64, device=device)
        self.keys = torch.zeros(rows, 2, dtype=torch.int32, device=device)
        self.generated = torch.zeros(rows, dtype=torch.int64, device=device)
        self.counts = torch.zeros(rows, limits.vocab_size, dtype=torch.int32, device=device)
        self.bias = BiasTable(rows, device)
        self.rules = TokenRuleBook(limits, device)
        # Host mirrors.
        self._features = np.zeros(limits.max_slots, np.int64)
        self._top_k = np.zeros(limits.max_slots, np.int64)
        self._top_n = np.zeros(limits.max_slots, np.int64)
        self._parameters = np.zeros((limits.max_slots, len(COLUMNS)), np.float32)
        self._given: dict[int, Indices] = {}  # of the slots that want to know of some
        # seed keys, top_k, generated, whether it has a grammar
        self._integers = np.zeros((limits.max_slots, 5), np.int64)
        self._constraints: list[Constraint | None] = [None] * limits.max_slots

    def admit(
        self,
        slot: int,
        tokens: NDArray[np.int32],
        generated: int,
        wanted: shard_pb2.Sampling,
        constraint: Constraint | None = None,
    ) -> None:
        """Note what a slot wants, to which `admissions` had no objection; `load` brings it to the
        device."""
        features = features_of(wanted)
        if constraint is not None:
            features |= Feature.GRAMMAR
        self._constraints[slot] = constraint
        self._features[slot] = features
        self._top_k[slot] = wanted.top_k
        self._top_n[slot] = wanted.top_n
        self._parameters[slot] = [getattr(wanted, name) for name in COLUMNS]
        held = constraint is not None
        self._integers[slot] = (*noise.seed_keys(wanted.seed), wanted.top_k, generated, held)
        if features & PENALTIES:
            self._count(slot, tokens.astype(np.int64), len(tokens) - generated)
        if wanted.given:
            self._given[slot] = np.array(wanted.given, np.int64)
        else:
            self._given.pop(slot, None)
        self.rules.forget(slot)
        if features & Feature.RULES:
            # where a text may end is for its grammar to say, which holds EOS back itself
            grammars = self.matching.eos if constraint is not None else frozenset[int]()
            self.rules.admit(slot, tokens, generated, wanted.rules, grammars)
        # Also without a bias: that of the slot's last sequence must not stay.
        self.bias.set(slot, wanted.logit_bias)

    def append(self, appended: Sequence[tuple[int, Indices]]) -> None:
        """Count tokens that grammars forced as generated: all but the first of each slot's, which a
        step chose."""
        self.matching.append(
            [
                (constraint, tokens[1:].tolist())
                for slot, tokens in appended
                if (constraint := self._constraints[slot]) is not None
            ]
        )
        for slot, tokens in appended:
            if self._features[slot] & int(PENALTIES):
                self._count_generated(slot, tokens[1:])
        if appended:
            counts = np.array([(slot, len(tokens) - 1) for slot, tokens in appended], np.int64)
            index, more = upload(counts.T.copy(), self.device)
            self.generated.index_add_(0, index, more)

    def load(self, slots: Indices) -> None:
        """Fill the rows of admitted slots, all at once."""
        index = upload(slots, self.device)
        integers = upload(self._integers[slots], self.device)
        self.parameters.index_copy_(0, index, upload(self._parameters[slots], self.device))
        self.keys.index_copy_(0, index, integers[:, :2].int())
        self.top_k.index_copy_(0, index, integers[:, 2])
        self.generated.index_copy_(0, index, integers[:, 3])
        self.bits.mask.on.index_copy_(0, index, integers[:, 4].int())

    def plan(self, slots: Indices) -> SamplingPlan:
        """What a step that samples for these slots needs."""
        flags = self._features[slots]
        shaped = flags & int(SHAPED) != 0
        typical = flags & int(TYPICAL) == TYPICAL
        rows_alone, draws_alone = self._sampler.rows_alone, self._sampler.draws_alone
        kinds = (
            (~shaped & ~typical, draws_alone),
            (shaped & ~typical, draws_alone),
            (typical, rows_alone),
        )
        parts = [rows for kind, alone in kinds for rows in _rows_of(kind, alone)]
        held = [
            (row, constraint)
            for row in np.flatnonzero(flags & int(Feature.GRAMMAR)).tolist()
            if (constraint := self._constraints[slots[row]]) is not None
        ]
        return SamplingPlan(
            slots=upload(slots, self.device),
            features=Feature(int(np.bitwise_or.reduce(flags))),
            parts=tuple(self._part(slots, rows) for rows in parts),
            top_n=self._top_n[slots],
            given=self.given(slots),
            held=self.matching.in_order(held),
            held_slots=np.array([constraint.slot for _, constraint in held], np.int64),
        )

    def given(self, slots: Indices) -> Given | None:
        """What these slots want to know of, one row each."""
        if not self._given:
            return None
        none = np.empty(0, np.int64)
        return Given.of([self._given.get(slot, none) for slot in slots.tolist()], self.device)

    def sample(
        self, logits: Tensor, plan: SamplingPlan, drawn: SampleGraph | None = None
    ) -> Sampled:
        """Choose a token a row and count it. logits: [rows, vocabulary]; drawn: draws those parts
        of these logits that want nothing else."""
        slots = plan.slots
        if plan.held:
            self.matching.wait()
            self.bits.upload(plan.held_slots)
        if len(plan.parts) == 1:
            token = self.chosen(logits, plan.parts[0], drawn)
        else:
            token = torch.empty_like(slots)
            for part in plan.parts:
                token[part.slot_and_row[1]] = self.chosen(logits, part, drawn)
        if not plan.features & (PENALTIES | Feature.LOGPROBS | Feature.RULES):
            return Sampled(token)
        known = token.clamp(min=0)  # nothing is read any more of a row with NO_TOKEN
        if plan.features & Feature.RULES:
            self.rules.note(slots, known)
        if plan.features & PENALTIES:
            one = torch.full_like(slots, sampler.GENERATED_ONCE, dtype=torch.int32)
            self.counts.index_put_((slots, known), one, accumulate=True)
        if not plan.features & Feature.LOGPROBS:
            return Sampled(token)
        given = None if plan.given is None else plan.given.tokens
        top_n, alone = int(plan.top_n.max()), self._sampler.rows_alone
        return Sampled(token, scores_of(logits, known, top_n, given, alone))

    def _part(self, slots: Indices, rows: Indices) -> RowGroup:
        slots = slots[rows]
        flags = self._features[slots]
        wanted = Feature(int(np.bitwise_or.reduce(flags)))
        typical = bool((flags & int(TYPICAL) == TYPICAL).all())
        own = typical or bool(wanted & SHAPED)  # a copy of their logits, in their order
        slot_and_row = upload(np.stack((slots, rows)), self.device)
        random = flags[flags & int(Feature.RANDOM) != 0]
        by_k = flags & int(Feature.TOP_K) != 0
        held = bool(wanted & Feature.GRAMMAR)
        any_top_k = bool((random & int(Feature.TOP_K)).any())
        any_top_p = bool((random & int(Feature.TOP_P)).any())
        any_filter = bool((random & int(FILTERS)).any())
        draws = self.draws(
            slot_and_row[0],
            torch.arange(len(slots), device=self.device) if own else slot_and_row[1],
            # Of draws under a mask there are graphs for all filters and for none.
            any_top_k=any_filter if held else any_top_k,
            any_top_p=any_filter if held else any_top_p,
            any_filter=any_filter,
            held=held,
        )
        return RowGroup(
            slot_and_row=slot_and_row,
            penalties=self._penalties(slot_and_row) if own else None,
            biased=bool(wanted & Feature.BIAS),
            rules=self.rules.rules(slots) if wanted & Feature.RULES else None,
            typical=typical,
            k_limit=int(self._top_k[slots].max()) if by_k.all() else None,
            draws=draws,
        )

    def _penalties(self, slot_and_row: Tensor) -> Penalties:
        return Penalties(
            slots=slot_and_row[0],
            rows=slot_and_row[1],
            counts=self.counts,
            repetition=self._column("repetition_penalty"),
            frequency=self._column("frequency_penalty"),
            presence=self._column("presence_penalty"),
        )

    def draws(
        self,
        slots: Tensor,
        rows: Tensor,
        *,
        any_top_k: bool,
        any_top_p: bool,
        any_filter: bool,
        held: bool,
    ) -> SamplingBatch:
        """What these slots want, of logits in these rows; see `draw.SamplingBatch`."""
        return SamplingBatch(
            slots=slots,
            rows=rows,
            temperature=self._column("temperature"),
            top_k=self.top_k,
            top_p=self._column("top_p"),
            min_p=self._column("min_p"),
            keys=self.keys,
            generated=self.generated,
            any_top_k=any_top_k,
            any_top_p=any_top_p,
            any_filter=any_filter,
            mask=self.bits.mask if held else None,
        )

    def _column(self, name: str) -> Tensor:
        return self.parameters[:, COLUMNS.index(name)]

    def chosen(self, logits: Tensor, part: RowGroup, drawn: SampleGraph | None = None) -> Tensor:
        """Of the rows of a part, and counted: [n] int64; arguments as of `sample`."""
        if part.penalties is None and drawn is not None:
            return drawn.draw(part)
        token = self.tokens(logits, part)
        self.generated.index_add_(0, part.slot_and_row[0], torch.ones_like(token))
        return token

    def tokens(self, logits: Tensor, part: RowGroup) -> Tensor:
        """Of the rows of a part, which nothing counts yet: [n] int64. logits: as of `sample`."""
        if part.penalties is not None:
            logits = self._sampler.penalise(logits, part.penalties)
        if part.biased:
            self.bias.add_(logits, part.draws.slots)
        if part.rules is not None:
            book = self.rules
            keep_rules(logits, part.rules, self.generated, book.recent, book.last)
        if part.typical:
            return draw_typical(logits, part.draws, self.parameters, part.k_limit)
        return self._sampler.draw(logits, part.draws)

    def _count(self, slot: int, tokens: Indices, prompt: int) -> None:
        row = self.counts[slot].zero_()
        row.index_fill_(0, upload(tokens[:prompt], self.device), sampler.IN_PROMPT)
        self._count_generated(slot, tokens[prompt:])

    def _count_generated(self, slot: int, tokens: Indices) -> None:
        again = upload(tokens, self.device)
        once = torch.full_like(again, sampler.GENERATED_ONCE, dtype=torch.int32)
        self.counts[slot].index_add_(0, again, once)


def _rows_of(kind: NDArray[np.bool_], alone: bool) -> list[Indices]:
    """The rows of a kind that are computed together. alone: see `ops.Sampler`."""
    rows = np.flatnonzero(kind)
    if alone:
        return np.split(rows, len(rows)) if len(rows) else []
    return [rows] if len(rows) else []
