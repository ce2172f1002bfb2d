"""Warmup: run the largest step there will be, then give the KV cache the memory that is left."""

from __future__ import annotations

import torch

from penstock_proto import shard_pb2
from penstock_shard import log
from penstock_shard.memory import kv_cache
from penstock_shard.memory.compile_ahead import compile_ahead
from penstock_shard.memory.measure import Measured, graph_sizes, make_runner, measure, probe_blocks
from penstock_shard.memory.memory import check_left, count_blocks, held_bytes, ledger, too_small
from penstock_shard.memory.out_of_memory import give_back, is_out_of_memory
from penstock_shard.memory.smaller import attempts, prefill_sizes
from penstock_shard.phases import SPENT, phase
from penstock_shard.ranks.agreement import NoMemory, check_room
from penstock_shard.steps.graphs import Capture, CountedCapture
from penstock_shard.steps.runner import Runner
from penstock_shard.steps.slots import MAX_CHUNKS, ShardLimits
from penstock_shard.weights.broken_weights import first_broken
from penstock_shard.weights.loaded_model import LoadedModel

PHASES = ("compile", "warm-up", "capture")


class DoesNotFit(ValueError):
    """The memory cannot hold what was asked; the message names the options to change."""


def warm_up(
    loaded: LoadedModel, request: shard_pb2.WarmupRequest
) -> tuple[Runner, shard_pb2.WarmupResponse]:
    """Returns the runner that serves and what the router must know. A collective.

    Raises ValueError for a request that contradicts itself and for a model whose logits are no
    numbers, DoesNotFit for too little memory.
    """
    _check(request)
    _check_rotations(loaded, request.max_sequence_length)
    request, measured = _measure_what_fits(loaded, request)
    prefill, decode = measured.prefill, measured.decode
    # Rank 0 knows, and every rank takes part before any gives up: no other must wait for one that
    # has. The same holds for the number of blocks.
    if not loaded.group.minimum(prefill.finite and decode.finite, loaded.device):
        raise ValueError(_not_finite(loaded))
    workspace = max(measured.peak, measured.sampling) - loaded.decoder.nbytes
    peak = measured.graphs + max(measured.peak, measured.sampling)
    blocks, problem = count_blocks(loaded, request, peak)
    blocks = loaded.group.minimum(blocks, loaded.device)
    if problem is None and blocks < 2:
        problem = too_small(loaded, request)
    if problem is not None:
        raise DoesNotFit(problem)
    runner, graphs = _allocate_what_fits(loaded, request, blocks, measured)
    blocks = runner.limits.num_blocks
    with phase("warm-up"):
        costs = runner.step_costs()
    if costs:
        told = ", ".join(f"{rows}: {seconds * 1e3:.2f}" for rows, seconds in costs.items())
        log.info(f"ms of steps with prompts by rows: {told}")
    log.info(f"KV cache: {blocks} blocks of {loaded.block_size} tokens in {loaded.cache_dtype}")
    return runner, shard_pb2.WarmupResponse(
        num_blocks=blocks,
        prefill_seconds=prefill.seconds,
        decode_seconds=decode.seconds,
        memory_used=kv_cache.used_bytes(loaded.device),
        memory=ledger(loaded, runner.cache.nbytes, workspace, graphs),
        memory_total=kv_cache.total_bytes(loaded.device, loaded.group.world_size),
        phases={name: SPENT[name] for name in PHASES if name in SPENT},
        cost_rows=costs.keys(),
        cost_seconds=costs.values(),
        max_prefill_tokens=request.max_prefill_tokens,
    )


def _measure_what_fits(
    loaded: LoadedModel, asked: shard_pb2.WarmupRequest
) -> tuple[shard_pb2.WarmupRequest, Measured]:
    """Measure the largest step that memory holds: with as many prompt tokens as were asked, or
    fewer. Returns the request with what it has now."""
    request = shard_pb2.WarmupRequest()
    request.CopyFrom(asked)
    problem = ""
    for tokens in prefill_sizes(asked.max_prefill_tokens):
        if problem:
            log.warning(
                f"a step of {request.max_prefill_tokens} prompt tokens does not fit in memory, "
                f"trying {tokens}: {problem}"
            )
        request.max_prefill_tokens = tokens
        try:
            probe = _limits(loaded, request, probe_blocks(loaded, request))
            _compile_ahead(loaded, probe)
            with phase("warm-up"):
                return request, measure(loaded, probe)
        except (RuntimeError, MemoryError) as error:
            problem = _reason(error, loaded)
        give_back(loaded.device)
    raise DoesNotFit(
        f"a step of {request.max_prefill_tokens} prompt tokens, or sampling for "
        f"{request.max_slots} sequences, does not fit in memory: lower "
        f"--max-batch-prefill-tokens or --max-batch-size ({problem})"
    )


def _allocate_what_fits(
    loaded: LoadedModel, request: shard_pb2.WarmupRequest, blocks: int, measured: Measured
) -> tuple[Runner, int]:
    """The KV cache and graphs beside it, or less of both, with room for the largest step in what is
    free then. Returns the bytes of graphs, too."""
    fixed = bool(request.max_batch_total_tokens or loaded.shares.kv_cache)
    wanted = graph_sizes(loaded, _limits(loaded, request, blocks))
    problem = ""
    for graphs, fewer in attempts(wanted, blocks, fixed):
        if problem:
            log.warning(
                f"KV cache and graphs do not fit in memory, trying {fewer} of {blocks} blocks and "
                f"{len(graphs)} of {len(wanted)} sizes of graphs: {problem}"
            )
        try:
            runner = make_runner(loaded, _limits(loaded, request, fewer))
            check_room(loaded.group, loaded.device, measured.graphs if graphs else 0)
            give_back(loaded.device)  # graphs have memory of their own
            before = held_bytes(loaded.device)
            _capture_graphs(runner, graphs)
            taken = held_bytes(loaded.device) - before
            runner.workspace = max(0, measured.peak - loaded.decoder.nbytes)
            needed = max(measured.peak, measured.sampling) - loaded.decoder.nbytes
            check_left(loaded.group, loaded.device, loaded.shares, needed)
            return runner, taken
        except (RuntimeError, MemoryError) as error:
            problem = _reason(error, loaded)
        runner = None  # type: ignore[assignment]  # its memory
        give_back(loaded.device)
    raise DoesNotFit(
        f"the KV cache of {blocks} blocks and the graphs of steps do not fit in memory: lower "
        f"--cuda-memory-fraction, --max-batch-total-tokens or --max-batch-prefill-tokens, or "
        f"switch graphs off by --cuda-graphs 0 ({problem})"
    )


def _reason(error: Exception, loaded: LoadedModel) -> str:
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


def _not_finite(loaded: LoadedModel) -> str:
    name = str(loaded.dtype).removeprefix("torch.")
    reason = f"the weights are finite in {name}, so what is computed from them overflows"
    if (broken := first_broken(loaded.decoder)) is not None:
        reason = f"{broken} in {name}"
    if name == "float16":
        reason += "; --dtype bfloat16 has a wider range"
    return f"the model's logits are not finite numbers (NaN or infinity) at warmup: {reason}"


def _compile_ahead(loaded: LoadedModel, limits: ShardLimits) -> None:
    """Of several ranks each compiles as it goes: their steps are collectives."""
    sizes = graph_sizes(loaded, limits)
    if sizes and loaded.group.world_size == 1:
        with phase("compile"):
            compile_ahead(loaded, limits, sizes)
        log.info(f"compiled kernels in {SPENT['compile']:.1f} s")


def _capture_graphs(runner: Runner, sizes: tuple[int, ...]) -> None:
    if sizes:
        with phase("capture"):
            capture = CountedCapture(Capture())
            runner.capture_graphs(sizes, capture, capture.expect)
        seconds = SPENT["capture"]
        log.info(f"captured graphs of steps, up to {sizes[-1]} decode rows, in {seconds:.1f} s")


def _check(request: shard_pb2.WarmupRequest) -> None:
    for name in ("max_prefill_tokens", "max_slots", "max_sequence_length"):
        if getattr(request, name) < 1:
            raise ValueError(f"{name} must be at least 1, not {getattr(request, name)}")


def _check_rotations(loaded: LoadedModel, positions: int) -> None:
    """Raises DoesNotFit where no memory holds their table, and what it is made of."""
    needed = 2 * positions * loaded.model.head_dim * torch.float32.itemsize
    if needed > kv_cache.total_bytes(loaded.device, loaded.group.world_size):
        raise DoesNotFit(
            f"the rotations of {positions} positions take {needed / 1e9:.1f} GB, more than there "
            "is: lower --max-total-tokens"
        )


def _limits(loaded: LoadedModel, request: shard_pb2.WarmupRequest, blocks: int) -> ShardLimits:
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
