"""What graphs take of a GPU, measured before there is a cache: some are captured, and what is gone
then is what they take.

All share one pool, in which the largest step finds its room first, so that the others add what the
driver keeps of each: its launches. That differs little from size to size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock_shard.steps.graphs import Capturer, GraphKind

LARGEST = slice(-1, None)
SOME = slice(-2, None, -6)  # of the others


def capture_some(kinds: Iterable[GraphKind], capture: Capturer, used: Callable[[], int]) -> int:
    """Captures the largest graphs of each kind and some of the others. Returns the bytes of a GPU
    that the rest would take, by what these others did.

    used: bytes of the GPU that are taken, by whomever. Raises what a capture raises.
    """
    rest = 0
    for kind in kinds:
        largest = kind.capture(capture, LARGEST)
        before = used()
        some = kind.capture(capture, SOME)
        if some:  # rounded up
            taken = max(0, used() - before)
            rest += -(-taken * (kind.count - largest - some) // some)
    return rest
