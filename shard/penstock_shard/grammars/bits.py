"""The bits of every slot's mask, on the host, where they are made, and on the device."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from penstock_kernels.mask import Mask, words_of
from penstock_shard.steps.rows import Indices


class Bits:
    """One row a slot; the row behind the last slot belongs to padding.

    One buffer is enough: a mask is made after the token before it was read, when the draw that read
    the mask before is over.
    """

    def __init__(self, slots: int, vocab_size: int, device: torch.device) -> None:
        rows, words = slots + 1, words_of(vocab_size)
        cuda = device.type == "cuda"
        self._host = torch.zeros(rows, words, dtype=torch.int32, pin_memory=cuda)
        self.rows: NDArray[np.int32] = self._host.numpy()
        # A CPU reads what was made.
        bits = torch.zeros(rows, words, dtype=torch.int32, device=device) if cuda else self._host
        self.mask = Mask(bits, torch.zeros(rows, dtype=torch.int32, device=device))
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]

    def allow_all(self, slot: int) -> None:
        """Nothing is known of a slot: its row must still have a token."""
        self.rows[slot] = -1

    def allow_one(self, slot: int, token: int) -> None:
        """Only this token."""
        row = self.rows[slot].view(np.uint32)
        row.fill(0)
        row[token >> 5] = 1 << (token & 31)

    def hold_back(self, slot: int, tokens: Iterable[int]) -> None:
        """None of these, where others are allowed."""
        row = self.rows[slot].view(np.uint32)
        rest = row.copy()
        for token in tokens:
            rest[token >> 5] &= ~np.uint32(1 << (token & 31))
        if rest.any():
            row[:] = rest

    def upload(self, slots: Indices) -> None:
        """Bring the rows of these slots to the device, beside what is computed there; what is
        launched from now on in the current stream sees them."""
        if self._stream is None:
            return
        first, last = int(slots.min()), int(slots.max()) + 1
        with torch.cuda.stream(self._stream):
            self.mask.bits[first:last].copy_(self._host[first:last], non_blocking=True)
        torch.cuda.current_stream().wait_stream(self._stream)
