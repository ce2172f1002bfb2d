"""What slots add to the logits of some tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from penstock_proto import shard_pb2
from penstock_shard.device import upload


class BiasTable:
    """A row a slot, as wide as the widest needs; the rest adds 0 to token 0."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._token = torch.zeros(rows, 0, dtype=torch.int64, device=device)
        self._value = torch.zeros(rows, 0, device=device)

    def set(self, slot: int, wanted: shard_pb2.LogitBias) -> None:
        """What a slot adds from now on; nothing, if nothing is wanted."""
        count = len(wanted.token)
        self._widen(count)
        if not self._value.shape[1]:
            return
        self._token[slot].zero_()
        self._value[slot].zero_()
        if not count:
            return
        tokens, values = np.array(wanted.token, np.int64), np.array(wanted.value, np.float32)
        self._token[slot, :count].copy_(upload(tokens, self._token.device))
        self._value[slot, :count].copy_(upload(values, self._value.device))

    def add_(self, logits: Tensor, slots: Tensor) -> None:
        """To the logits of these slots, in place. logits: [n, vocabulary]; slots: [n] int64."""
        index = self._token.index_select(0, slots)
        logits.scatter_add_(1, index, self._value.index_select(0, slots))

    def _widen(self, count: int) -> None:
        rows, width = self._value.shape
        if count > width:
            more = (1 << (count - 1).bit_length()) - width
            self._token = torch.cat((self._token, self._token.new_zeros(rows, more)), dim=1)
            self._value = torch.cat((self._value, self._value.new_zeros(rows, more)), dim=1)
