"""Warmup: run the largest step there will be, then give the KV cache the memory that is left."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch

from penstock_proto import shard_pb2
from penstock_shard import kv_cache, log
from penstock_shard.broken_weights import first_broken
from penstock_shard.compile_ahead import compile_ahead
from penstock_shard.graphs import Capture, buckets_for
from penstock_shard.loaded import LoadedModel
from penstock_shard.memory import blocks_of, count_blocks, held_bytes, ledger, too_small
from penstock_shard.out_of_memory import give_back, is_out_of_memory
from penstock_shard.phases import SPENT, phase
from penstock_shard.runner import Runner, operations
from penstock_shard.slots import MAX_CHUNKS, Limits
from penstock_shard.smaller import attempts, prefill_sizes

PHASES = ("compile", "warm-up", "capture")
NEUTRAL = shard_pb2.Sampling(top_p=1, typical_p=1, repetition_penalty=1)


class DoesNotFit(ValueError):
    """The memory cannot hold what was asked; the message names the options to change."""


class _Ran(NamedTuple):
    """A step that warmup ran, and whether the logits that it looked at were numbers."""

    seconds: float
    finite: bool

    def and_then(self, later: _Ran) -> _Ran:
        """The time of the later one, what is known of both."""
        return _Ran(later.seconds, self.finite and later.finite)


class _Measured(NamedTuple):
    """Steps, and bytes of a GPU, 0 on a CPU."""

    prefill: _Ran
    decode: _Ran
    peak: int  # of these steps beside the cache, weights included
    sampling: int  # the same while everything is sampled that can be asked for every slot
    graphs: int


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
    runner, graphs = _allocate_what_fits(loaded, request, blocks)
    blocks = runner.limits.num_blocks
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
) -> tuple[shard_pb2.WarmupRequest, _Measured]:
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
            probe = _limits(loaded, request, _probe_blocks(loaded, request))
            _compile_ahead(loaded, probe)
            with phase("warm-up"):
                return request, _measure(loaded, probe)
        except (RuntimeError, MemoryError) as error:
            problem = _reason(error, loaded)
        give_back(loaded.device)
    raise DoesNotFit(
        f"a step of {request.max_prefill_tokens} prompt tokens, or sampling for "
        f"{request.max_slots} sequences, does not fit in memory: lower "
        f"--max-batch-prefill-tokens or --max-batch-size ({problem})"
    )


def _allocate_what_fits(
    loaded: LoadedModel, request: shard_pb2.WarmupRequest, blocks: int
) -> tuple[Runner, int]:
    """The KV cache and graphs beside it, or less of both. Returns the bytes of graphs, too."""
    fixed = bool(request.max_batch_total_tokens or loaded.shares.kv_cache)
    wanted = _graph_sizes(loaded, _limits(loaded, request, blocks))
    problem = ""
    for graphs, fewer in attempts(wanted, blocks, fixed):
        if problem:
            log.warning(
                f"KV cache and graphs do not fit in memory, trying {fewer} of {blocks} blocks and "
                f"{len(graphs)} of {len(wanted)} sizes of graphs: {problem}"
            )
        try:
            runner = _runner(loaded, _limits(loaded, request, fewer))
            before = held_bytes(loaded.device)
            _capture_graphs(runner, graphs)
            return runner, held_bytes(loaded.device) - before
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
    """What an allocation says that failed. Raises DoesNotFit where several ranks would have to
    agree on what is tried next, while the others are in the middle of a collective; and an error
    that says anything else."""
    if not is_out_of_memory(error):
        raise error
    problem = (str(error) or "out of memory").partition("\n")[0]
    if loaded.group.world_size > 1:
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


def _graph_sizes(loaded: LoadedModel, limits: Limits) -> tuple[int, ...]:
    """Decode rows to capture graphs for; none where steps are launched kernel by kernel."""
    if loaded.device.type != "cuda":
        return ()
    sizes = loaded.cuda_graphs
    if sizes is None:
        sizes = tuple(buckets_for(limits.max_slots))
    return tuple(sorted({min(size, limits.max_slots) for size in sizes if size > 0}))


def _compile_ahead(loaded: LoadedModel, limits: Limits) -> None:
    """Of several ranks each compiles as it goes: their steps are collectives."""
    sizes = _graph_sizes(loaded, limits)
    if sizes and loaded.group.world_size == 1:
        with phase("compile"):
            compile_ahead(loaded, limits, sizes)
        log.info(f"compiled kernels in {SPENT['compile']:.1f} s")


def _capture_graphs(runner: Runner, sizes: tuple[int, ...]) -> None:
    if sizes:
        with phase("capture"):
            runner.capture_graphs(sizes, Capture())
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


def _limits(loaded: LoadedModel, request: shard_pb2.WarmupRequest, blocks: int) -> Limits:
    return Limits(
        max_prefill_tokens=request.max_prefill_tokens,
        max_slots=request.max_slots,
        max_sequence_length=request.max_sequence_length,
        max_top_n=request.max_top_n,
        vocab_size=loaded.model.vocab_size,
        block_size=loaded.block_size,
        num_blocks=blocks,
        max_chunks=request.max_chunks or MAX_CHUNKS,
    )


def _runner(loaded: LoadedModel, limits: Limits) -> Runner:
    cache = kv_cache.allocate(loaded.decoder, limits.num_blocks, loaded.block_size, loaded.device)
    ops = operations(loaded.decoder, limits, cache, loaded.dependent_launch)
    return Runner(loaded.decoder, loaded.group, limits, cache, *ops, loaded.grammars)


def _chunk_lengths(request: shard_pb2.WarmupRequest | Limits) -> list[int]:
    """The largest step, in as few sequences as their longest length allows."""
    longest = request.max_sequence_length
    total = min(request.max_prefill_tokens, longest * request.max_slots)
    return [longest] * (total // longest) + ([total % longest] if total % longest else [])


def _probe_blocks(loaded: LoadedModel, request: shard_pb2.WarmupRequest) -> int:
    """Scratch and the blocks of the largest step; three at least, for the decode steps."""
    lengths = _chunk_lengths(request)
    return 1 + max(sum(blocks_of(loaded, length) for length in lengths), 3)


def _measure(loaded: LoadedModel, limits: Limits) -> _Measured:
    """The largest prefill step and a decode step, and what they take."""
    cuda = loaded.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(loaded.device)
    runner = _runner(loaded, limits)
    # Else the first prompt that parts from another within a block waits for a compiler.
    runner.copy_blocks([(1, 2)])
    prefill = _prefill(runner, loaded, 2 if cuda else 1)
    start, step, again = _decode_commands(limits)
    decode = _run(runner, start)
    if limits.max_sequence_length >= 3:
        first = _run(runner, step)  # the first one of its shape is slower
        decode = decode.and_then(first).and_then(_run(runner, again))
    peak = sampling = graphs = 0
    if cuda:
        peak = torch.cuda.max_memory_allocated(loaded.device) - runner.cache.nbytes
        torch.cuda.reset_peak_memory_stats(loaded.device)
        if runner.sampling is not None:
            runner.sampling.rehearse(loaded.dtype)
        sampling = torch.cuda.max_memory_allocated(loaded.device) - runner.cache.nbytes
        graphs = _rehearse_graphs(loaded, runner, peak)
        del runner
        torch.cuda.empty_cache()
    return _Measured(prefill, decode, peak, sampling, graphs)


def _rehearse_graphs(loaded: LoadedModel, runner: Runner, peak: int) -> int:
    """Bytes that the graphs of steps hold: all share the memory of the largest ones, so these are
    captured before the cache is sized, and dropped; they know its address.

    Of several ranks it is an estimate, a copy of a step's activations: their graphs take mapped
    memory, which is not given back.
    """
    sizes = _graph_sizes(loaded, runner.limits)
    if not sizes:
        return 0
    if loaded.group.world_size > 1:
        return peak - loaded.decoder.nbytes
    torch.cuda.empty_cache()
    before = held_bytes(loaded.device)
    runner.capture_graphs(sizes[-1:], Capture(), largest=True)
    return held_bytes(loaded.device) - before


def _prefill(runner: Runner, loaded: LoadedModel, times: int) -> _Ran:
    """The last time: in the first one kernels may be compiled, for half a minute. The router takes
    shards for dead after ten times as long."""
    ran = _Ran(0.0, True)
    for _ in range(times):
        command = _prefill_command(loaded, runner.limits)
        command.release.extend(np.flatnonzero(runner.book.active).tolist())
        ran = ran.and_then(_run(runner, command))
    return ran


def _run(runner: Runner, command: shard_pb2.StepCommand) -> _Ran:
    command.step = runner.book.next_step
    start = time.perf_counter()
    results = [pending.build() for pending in runner.execute(command)]
    seconds = time.perf_counter() - start
    refused = [refusal for result in results for refusal in result.refused]
    if any(refusal.kind == shard_pb2.Refusal.OUT_OF_MEMORY for refusal in refused):
        raise MemoryError("the log's last line has the size")
    return _Ran(seconds, not refused)


def _prefill_command(loaded: LoadedModel, limits: Limits) -> shard_pb2.StepCommand:
    command = shard_pb2.StepCommand(repeat=1)
    block = 1
    for slot, length in enumerate(_chunk_lengths(limits)):
        blocks = np.arange(block, block + blocks_of(loaded, length), dtype=np.int32)
        block += len(blocks)
        tokens = np.arange(length, dtype=np.int32) % limits.vocab_size
        command.admit.add(
            slot=slot, tokens=tokens.tobytes(), blocks=blocks.tobytes(), sampling=NEUTRAL
        )
        command.chunk_slot.append(slot)
        command.chunk_length.append(length)
    return command


def _decode_commands(limits: Limits) -> list[shard_pb2.StepCommand]:
    """A prompt of one token in place of the first sequence, then two decode steps."""
    start = shard_pb2.StepCommand(repeat=1, release=[0], chunk_slot=[0], chunk_length=[1])
    blocks = np.arange(1, 1 + min(3, limits.num_blocks - 1, limits.table_width), dtype=np.int32)
    start.admit.add(
        slot=0, tokens=bytes(np.zeros(1, np.int32)), blocks=bytes(blocks), sampling=NEUTRAL
    )
    step = shard_pb2.StepCommand(repeat=1, decode_changed=True, decode=[0])
    return [start, step, shard_pb2.StepCommand(repeat=1)]
