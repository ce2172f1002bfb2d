"""What graphs take of a GPU, measured before there is a cache: some are captured, and what is gone
then is what they take.

All share one pool, in which the largest step finds its room first, so that the others add what the
driver keeps of each: its launches. That differs little from size to size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from penstock_shard.steps.graphs import Capturer, GraphKind

LARGEST = slice(-1, None)
SOME = slice(-2, None, -6)  # of the others


class GraphBytes(NamedTuple):
    """Bytes of a GPU."""

    captured: int  # of those graphs that are there
    others: int  # of those that are not, by what the captured ones took

    @property
    def all(self) -> int:
        """Of all graphs."""
        return self.captured + self.others


def graph_bytes(
    kinds: Iterable[GraphKind], capture: Capturer, used: Callable[[], int]
) -> GraphBytes:
    """Captures the largest graphs of each kind, and some of the others. They hold their memory as
    long as `kinds` live.

    used: bytes of the GPU that are taken, by whomever. Raises what a capture raises.
    """
    captured = others = 0
    for kind in kinds:
        before = used()
        largest = kind.capture(capture, LARGEST)
        between = used()
        some = kind.capture(capture, SOME)
        behind = used()
        captured += behind - before
        if some:  # rounded up
            others += -(-max(0, behind - between) * (kind.count - largest - some) // some)
    return GraphBytes(max(0, captured), others)
