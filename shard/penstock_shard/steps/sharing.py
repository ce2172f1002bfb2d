"""Which decode rows read cached blocks together, on the device."""

from __future__ import annotations

import numpy as np
import torch

from penstock_kernels.ops import Sharing
from penstock_shard.device import upload
from penstock_shard.steps.rows import Indices


class SharingTensors:
    """The groups of the standing decode list, cut into tiles of as many rows as attention takes.

    slots: the most rows of a list; tile_rows: rows of a tile.
    """

    def __init__(self, slots: int, tile_rows: int, device: torch.device) -> None:
        self._slots, self._tile_rows = slots, tile_rows
        self._tiles = _most_tiles(slots)
        size = slots + 3 * self._tiles
        self._numbers = torch.full((size,), 0, dtype=torch.int32, device=device)
        self._numbers[:slots].fill_(-1)
        self._any = False

    def load(self, rows: Indices, blocks: Indices, block_size: int) -> None:
        """Take in the groups: rows[i] rows of the list, one group after the other, share blocks[i]
        blocks."""
        if self._tile_rows < 2 or not (len(rows) or self._any):
            return
        numbers = np.zeros(self._slots + 3 * self._tiles, np.int32)
        numbers[: self._slots] = -1
        tiles = numbers[self._slots :].reshape(self._tiles, 3)
        first, used = 0, 0
        for count, shared in zip(rows.tolist(), blocks.tolist(), strict=True):
            for start in range(first, first + count, self._tile_rows):
                members = min(self._tile_rows, first + count - start)
                if members > 1:  # a row that is left over reads for itself
                    tiles[used] = start, members, shared * block_size
                    numbers[start : start + members] = used
                    used += 1
            first += count
        self._any = used > 0
        self._numbers.copy_(upload(numbers, self._numbers.device))

    def view(self, rows: int) -> Sharing | None:
        """What a step of so many decode rows reads; None where there is nothing to share."""
        if rows < 2 or self._tile_rows < 2:
            return None
        tiles = self._numbers[self._slots :].view(self._tiles, 3)
        return Sharing(self._numbers[:rows], tiles[: _most_tiles(rows)])


def _most_tiles(rows: int) -> int:
    """A power of two; tiles have two rows at least."""
    return 1 << max(0, (rows - 1).bit_length() - 1)
