"""What a start is going to allocate: the largest steps that memory holds, and a cache beside them.

Steps and graphs come first, and are measured; the cache gets what is left. Where that is too little
for a cache, smaller steps are tried: they leave more.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock_proto import shard_pb2
from penstock_shard import log
from penstock_shard.memory.compile_ahead import compile_ahead
from penstock_shard.memory.measure import Measured, graph_sizes, measure, probe_blocks
from penstock_shard.memory.memory import count_blocks, fixed_cache, too_small
from penstock_shard.memory.out_of_memory import give_back, is_out_of_memory
from penstock_shard.memory.smaller import step_sizes
from penstock_shard.phases import SPENT, phase
from penstock_shard.ranks.agreement import NoMemory
from penstock_shard.steps.graphs import GraphSizes
from penstock_shard.steps.limits import MAX_CHUNKS, ShardLimits
from penstock_shard.weights.loaded_model import LoadedModel

OF_ANOTHER = "another rank has too little memory for its part of the KV cache, and says why"


class DoesNotFit(ValueError):
    """The memory cannot hold what was asked; the message names the options to change."""


class Plan(NamedTuple):
    """What fits."""

    request: shard_pb2.WarmupRequest  # with the sizes of the largest step
    measured: Measured
    graphs: GraphSizes
    blocks: int  # of the cache, the same on every rank


def plan_what_fits(loaded: LoadedModel, asked: shard_pb2.WarmupRequest) -> Plan:
    """With steps as large as was asked, or smaller. A collective. Raises DoesNotFit."""
    request = shard_pb2.WarmupRequest()
    request.CopyFrom(asked)
    captures = bool(graph_sizes(loaded, limits_of(loaded, request, 0)).decode)
    ladder = list(step_sizes(asked.max_prefill_tokens, asked.max_slots, captures))
    problem = ""
    for sizes in ladder:
        if problem:
            without = ", without graphs" if captures and not sizes.graphs else ""
            log.warning(
                f"a step of {request.max_prefill_tokens} prompt tokens does not fit in memory, "
                f"trying {sizes.prefill_tokens} and {sizes.slots} sequences{without}: {problem}"
            )
        request.max_prefill_tokens, request.max_slots = sizes.prefill_tokens, sizes.slots
        limits = limits_of(loaded, request, probe_blocks(loaded, request))
        graphs = graph_sizes(loaded, limits) if sizes.graphs else GraphSizes(())
        try:
            _compile_ahead(loaded, limits, graphs)
            measured = measure(loaded, limits, graphs)
        except (RuntimeError, MemoryError) as error:
            problem = _of_the_step(request, reason(error, loaded))
            give_back(loaded.device)
            continue
        give_back(loaded.device)
        blocks, short = _count(loaded, request, measured, sizes == ladder[-1])
        if short is None:
            log.info(f"memory: {measured}")
            return Plan(request, measured, graphs, blocks)
        problem = short
        if not measured.beside_steps:
            break
    raise DoesNotFit(problem)


def _of_the_step(request: shard_pb2.WarmupRequest, problem: str) -> str:
    return (
        f"a step of {request.max_prefill_tokens} prompt tokens, or sampling for "
        f"{request.max_slots} sequences, does not fit in memory: lower "
        f"--max-batch-prefill-tokens or --max-batch-size ({problem})"
    )


def _count(
    loaded: LoadedModel, request: shard_pb2.WarmupRequest, measured: Measured, last: bool
) -> tuple[int, str | None]:
    """Blocks that every rank can have, and why those are too few. last: nothing smaller is left to
    try, so that whatever serves a sequence is enough. A collective."""
    own, problem = count_blocks(loaded, request, measured.free)
    blocks = loaded.group.minimum(own, loaded.device)
    if problem is None and blocks < 2:
        problem = too_small(loaded) if own < 2 else OF_ANOTHER
    wanted = probe_blocks(loaded, request)
    choice = measured.beside_steps and not last and not fixed_cache(loaded, request)
    if problem is None and choice and blocks < wanted:
        problem = f"the KV cache would have {blocks} blocks, and such a step takes {wanted}"
    return blocks, problem


def reason(error: Exception, loaded: LoadedModel) -> str:
    """What an allocation says that failed. Raises DoesNotFit where the other ranks do not know of
    it, as they are in the middle of a collective; and an error that says anything else."""
    if not is_out_of_memory(error):
        raise error
    problem = (str(error) or "out of memory").partition("\n")[0]
    if loaded.group.world_size > 1 and not isinstance(error, NoMemory):
        raise DoesNotFit(
            f"memory ran out on rank {loaded.group.rank}: lower --max-batch-prefill-tokens, "
            f"--max-batch-size or --max-batch-total-tokens ({problem})"
        ) from None
    return problem


def limits_of(loaded: LoadedModel, request: shard_pb2.WarmupRequest, blocks: int) -> ShardLimits:
    """Of steps as a request wants them, with a cache of so many blocks."""
    return ShardLimits(
        max_prefill_tokens=request.max_prefill_tokens,
        max_slots=request.max_slots,
        max_sequence_length=request.max_sequence_length,
        max_top_n=request.max_top_n,
        vocab_size=loaded.model.vocab_size,
        block_size=loaded.block_size,
        num_blocks=blocks,
        max_chunks=request.max_chunks or MAX_CHUNKS,
    )


def _compile_ahead(loaded: LoadedModel, limits: ShardLimits, graphs: GraphSizes) -> None:
    """Of several ranks each compiles as it goes: their steps are collectives."""
    if graphs.decode and loaded.group.world_size == 1:
        with phase("compile"):
            compile_ahead(loaded, limits, graphs)
        log.info(f"compiled kernels in {SPENT['compile']:.1f} s")
