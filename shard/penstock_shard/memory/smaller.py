"""Smaller sizes to try where a start finds too little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

LEAST_PREFILL_TOKENS = 64
# Shares of the graphs and of the KV cache. A slightly smaller cache costs next to nothing; without
# graphs a small batch has half its speed, but it is served.
SHARES = ((1.0, 1.0), (1.0, 0.875), (0.5, 0.75), (0.0, 0.5), (0.0, 0.25))


class Attempt(NamedTuple):
    """What to allocate."""

    graphs: tuple[int, ...]  # decode rows, ascending; empty: none, of no kind
    blocks: int  # of the KV cache


def attempts(graphs: tuple[int, ...], blocks: int, fixed: bool) -> Iterator[Attempt]:
    """What is wanted, then less and less. fixed: the operator has said how large the cache is."""
    before = None
    for of_graphs, of_cache in SHARES:
        count = -(-len(graphs) * of_graphs // 1)
        least = min(blocks, 2)  # the scratch block and another
        cache = blocks if fixed else max(int(blocks * of_cache), least)
        attempt = Attempt(graphs[: int(count)], cache)
        if attempt != before:
            yield attempt
        before = attempt


def prefill_sizes(tokens: int) -> Iterator[int]:
    """Prompt tokens of a step, halved as long as that makes sense. Prompts are computed in chunks,
    so each length is still served."""
    yield tokens
    while tokens > LEAST_PREFILL_TOKENS:
        tokens = max(tokens // 2, LEAST_PREFILL_TOKENS)
        yield tokens
