"""Where a host stands among those that serve one model: its ranks, and everybody's ports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Of this host in its group."""

    nnodes: int
    node_rank: int
    address: str  # of host 0
    port: int  # where the ranks meet; behind it that of host 0's launcher, and those of shards
    shards: int  # of all hosts

    @property
    def control_port(self) -> int:
        return self.port + 1

    @property
    def local_ranks(self) -> range:
        """Ranks of the shards of this host."""
        return self.ranks_of(self.node_rank)

    def ranks_of(self, node_rank: int) -> range:
        count = self.shards // self.nnodes
        return range(node_rank * count, (node_rank + 1) * count)

    def shard_port(self, rank: int) -> int:
        """Where a shard of another host than 0 listens."""
        return self.port + 2 + rank % (self.shards // self.nnodes)
