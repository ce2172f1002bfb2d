"""The sizes of a shard that are fixed when it warms up."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CHUNKS = 64  # where the router does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLimits:
    """Sizes fixed at warmup."""

    max_prefill_tokens: int
    max_slots: int
    max_sequence_length: int
    max_top_n: int
    vocab_size: int
    block_size: int
    num_blocks: int
    max_chunks: int = MAX_CHUNKS  # no prompt begins in a step of so many

    @property
    def table_width(self) -> int:
        """Blocks of the longest sequence."""
        return -(-self.max_sequence_length // self.block_size)
