"""Smaller sizes to try where a start finds too little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from penstock_shard.steps.graphs import GraphSizes

LEAST_PREFILL_TOKENS = 64
# Tokens of prompts for a sequence of a smaller step: draws for all sequences take as much memory as
# a step does.
TOKENS_A_SLOT = 4
# Parts of the graphs, by the rows of their steps, and of the KV cache. A slightly smaller cache
# costs next to nothing; without graphs a small batch has half its speed, but it is served.
SHARES = ((1.0, 1.0), (1.0, 0.875), (0.25, 0.75), (0.0, 0.5), (0.0, 0.25))


class StepSizes(NamedTuple):
    """The largest step to have room for."""

    prefill_tokens: int
    slots: int  # sequences
    graphs: bool  # whether steps are captured


class Attempt(NamedTuple):
    """What to allocate."""

    graphs: GraphSizes
    blocks: int  # of the KV cache


def step_sizes(prefill_tokens: int, slots: int, graphs: bool) -> Iterator[StepSizes]:
    """What is wanted, then half of it again and again as long as that makes sense, at last without
    graphs. Prompts are computed in chunks, so each length is still served."""
    yield StepSizes(prefill_tokens, slots, graphs)
    while prefill_tokens > LEAST_PREFILL_TOKENS:
        prefill_tokens = max(prefill_tokens // 2, LEAST_PREFILL_TOKENS)
        slots = min(slots, prefill_tokens // TOKENS_A_SLOT)
        yield StepSizes(prefill_tokens, slots, graphs)
    if graphs:
        yield StepSizes(prefill_tokens, slots, False)


def attempts(graphs: GraphSizes, blocks: int, fixed: bool) -> Iterator[Attempt]:
    """What is wanted, then less and less. fixed: the operator has said how large the cache is."""
    before = None
    for of_graphs, of_cache in SHARES:
        least = min(blocks, 2)  # the scratch block and another
        cache = blocks if fixed else max(int(blocks * of_cache), least)
        attempt = Attempt(graphs.share(of_graphs), cache)
        if attempt != before:
            yield attempt
        before = attempt
