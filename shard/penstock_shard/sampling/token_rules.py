"""The rules about tokens that slots have: on the host, and what they depend on, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.rules import ANY, LOOK_BACK, Allowed, Bans, Green, Rules, green_below
from penstock_proto import shard_pb2
from penstock_shard.device import upload
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.rows import Indices

NONE = -1  # in `recent`, where nothing is generated yet
ALWAYS = 2**62


@dataclass(frozen=True, slots=True)
class SlotRules:
    """Of one slot. token, until: [m]; before: [m, LOOK_BACK]; others: [v] bool on the device."""

    token: NDArray[np.int64]
    until: NDArray[np.int64]
    before: NDArray[np.int64]
    others: Tensor | None
    green_share: float
    green_bias: float


class TokenRuleBook:
    """Nothing of it is looked at in a step without a slot that has rules."""

    def __init__(self, limits: ShardLimits, device: torch.device) -> None:
        rows = limits.max_slots + 1
        self._device, self._vocabulary = device, limits.vocab_size
        self._slots: dict[int, SlotRules] = {}
        self.recent = torch.full((rows, LOOK_BACK), NONE, dtype=torch.int64, device=device)
        self.last = torch.zeros(rows, dtype=torch.int64, device=device)

    @property
    def slots(self) -> frozenset[int]:
        """Those that have rules."""
        return frozenset(self._slots)

    def admit(
        self,
        slot: int,
        tokens: NDArray[np.int32],
        generated: int,
        rules: shard_pb2.TokenRules,
        free: frozenset[int] = frozenset(),
    ) -> None:
        """tokens: prompt and what was generated before. free: never late."""
        own = tokens[len(tokens) - generated :][-LOOK_BACK:].astype(np.int64)
        recent = np.full(LOOK_BACK, NONE, np.int64)
        recent[LOOK_BACK - len(own) :] = own
        self.recent[slot].copy_(upload(recent, self._device))
        self.last[slot].fill_(int(tokens[-1]))
        self._slots[slot] = self._read(rules, free)

    def forget(self, slot: int) -> None:
        """A sequence without rules has the slot."""
        self._slots.pop(slot, None)

    def rules(self, slots: Indices) -> Rules:
        """Of the rows of a batch."""
        found = [(row, slot, self._slots.get(slot)) for row, slot in enumerate(slots.tolist())]
        rows = [(row, slot, rules) for row, slot, rules in found if rules is not None]
        return Rules(self._bans(rows), self._allowed(rows), self._green(rows))

    def note(self, slots: Tensor, token: Tensor) -> None:
        """slots, token: [n] int64, generated."""
        earlier = self.recent.index_select(0, slots)[:, 1:]
        self.recent.index_copy_(0, slots, torch.cat((earlier, token.unsqueeze(1)), dim=1))
        self.last.index_copy_(0, slots, token)

    def _read(self, rules: shard_pb2.TokenRules, free: frozenset[int]) -> SlotRules:
        late = [token for token in rules.late if token not in free]
        runs = [list(run.token) for run in rules.banned]
        before = np.full((len(late) + len(runs), LOOK_BACK), ANY, np.int64)
        for place, run in enumerate(runs, len(late)):
            if len(run) > 1:
                before[place, 1 - len(run) :] = run[:-1]
        until = [rules.min_tokens] * len(late) + [ALWAYS] * len(runs)
        others = None
        if rules.allowed:
            mask = np.ones(self._vocabulary, np.bool_)
            mask[np.frombuffer(rules.allowed, "<i4")] = False
            others = upload(mask, self._device)
        return SlotRules(
            token=np.array(late + [run[-1] for run in runs], np.int64),
            until=np.array(until, np.int64),
            before=before,
            others=others,
            green_share=rules.green_share,
            green_bias=rules.green_bias,
        )

    def _bans(self, rows: list[tuple[int, int, SlotRules]]) -> Bans | None:
        counts = [len(rules.token) for _, _, rules in rows]
        if not sum(counts):
            return None

        def repeated(values: list[int]) -> Tensor:
            return upload(np.repeat(np.array(values, np.int64), counts), self._device)

        return Bans(
            slot=repeated([slot for _, slot, _ in rows]),
            row=repeated([row for row, _, _ in rows]),
            token=upload(np.concatenate([rules.token for _, _, rules in rows]), self._device),
            until=upload(np.concatenate([rules.until for _, _, rules in rows]), self._device),
            before=upload(np.concatenate([rules.before for _, _, rules in rows]), self._device),
        )

    def _allowed(self, rows: list[tuple[int, int, SlotRules]]) -> Allowed | None:
        masks = [(row, rules.others) for row, _, rules in rows if rules.others is not None]
        if not masks:
            return None
        places, others = zip(*masks, strict=True)
        return Allowed(upload(np.array(places, np.int64), self._device), torch.stack(others))

    def _green(self, rows: list[tuple[int, int, SlotRules]]) -> Green | None:
        marked = [(row, slot, rules) for row, slot, rules in rows if rules.green_bias]
        if not marked:
            return None
        below = [green_below(rules.green_share) for _, _, rules in marked]
        return Green(
            slot=upload(np.array([slot for _, slot, _ in marked], np.int64), self._device),
            row=upload(np.array([row for row, _, _ in marked], np.int64), self._device),
            below=upload(np.array(below, np.int32), self._device),
            bias=upload(np.array([r.green_bias for _, _, r in marked], np.float32), self._device),
        )
