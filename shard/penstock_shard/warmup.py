"""Warmup: run the largest step there will be, then give the KV cache the memory that is left."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from penstock_proto import shard_pb2
from penstock_shard import kv_cache, log
from penstock_shard.broken_weights import first_broken
from penstock_shard.compile_ahead import compile_ahead
from penstock_shard.graphs import Capture, CountedCapture, buckets_for
from penstock_shard.loaded_model import LoadedModel
from penstock_shard.memory import blocks_of, count_blocks, held_bytes, ledger, too_small
from penstock_shard.phases import SPENT, phase
from penstock_shard.runner import Runner, operations
from penstock_shard.slots import MAX_CHUNKS, Limits

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


def warm_up(
    loaded: LoadedModel, request: shard_pb2.WarmupRequest
) -> tuple[Runner, shard_pb2.WarmupResponse]:
    """Returns the runner that serves and what the router must know. A collective.

    Raises ValueError for a request that contradicts itself and for a model whose logits are no
    numbers, DoesNotFit for too little memory.
    """
    _check(request)
    _check_rotations(loaded, request.max_sequence_length)
    probe = _limits(loaded, request, _probe_blocks(loaded, request))
    try:
        _compile_ahead(loaded, probe)
        with phase("warm-up"):
            prefill, decode, peak, sampling = _measure(loaded, probe)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DoesNotFit(
            f"a step of {request.max_prefill_tokens} prompt tokens, or sampling for "
            f"{request.max_slots} sequences, does not fit in memory: lower "
            f"--max-batch-prefill-tokens or --max-batch-size ({error})"
        ) from None
    # Rank 0 knows, and every rank takes part before any gives up: no other must wait for one that
    # has. The same holds for the number of blocks.
    if not loaded.group.minimum(prefill.finite and decode.finite, loaded.device):
        raise ValueError(_not_finite(loaded))
    # The graphs keep an own copy of a step's activations.
    workspace = max(peak, sampling) - loaded.decoder.nbytes
    kept = peak - loaded.decoder.nbytes if _graph_sizes(loaded, probe) else 0
    peak = kept + max(peak, sampling)
    blocks, problem = count_blocks(loaded, request, peak)
    blocks = loaded.group.minimum(blocks, loaded.device)
    if problem is None and blocks < 2:
        problem = too_small(loaded, request)
    if problem is not None:
        raise DoesNotFit(problem)
    try:
        runner = _runner(loaded, _limits(loaded, request, blocks))
        before = held_bytes(loaded.device)
        _capture_graphs(loaded, runner)
        graphs = held_bytes(loaded.device) - before
        costs = runner.step_costs()
    except torch.OutOfMemoryError as error:
        raise DoesNotFit(
            f"the graphs of steps do not fit beside a KV cache of {blocks} blocks: lower "
            f"--cuda-memory-fraction, --max-batch-total-tokens or --max-batch-prefill-tokens, or "
            f"switch graphs off by --cuda-graphs 0 ({error})"
        ) from None
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
    )


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


def _capture_graphs(loaded: LoadedModel, runner: Runner) -> None:
    sizes = _graph_sizes(loaded, runner.limits)
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


def _measure(loaded: LoadedModel, limits: Limits) -> tuple[_Ran, _Ran, int, int]:
    """The largest prefill step and a decode step, and the peaks beside the cache: of these steps,
    and of sampling all that can be asked for every slot."""
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
    peak = sampling = 0
    if cuda:
        peak = torch.cuda.max_memory_allocated(loaded.device) - runner.cache.nbytes
        torch.cuda.reset_peak_memory_stats(loaded.device)
        if runner.sampling is not None:
            runner.sampling.rehearse(loaded.dtype)
        sampling = torch.cuda.max_memory_allocated(loaded.device) - runner.cache.nbytes
        del runner
        torch.cuda.empty_cache()
    return prefill, decode, peak, sampling


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
    return _Ran(seconds, not any(result.refused for result in results))


def _admission(
    slot: int, tokens: NDArray[np.int32], blocks: NDArray[np.int32]
) -> shard_pb2.Admission:
    request = shard_pb2.Request(prompt=tokens.tobytes(), sampling=NEUTRAL)
    return shard_pb2.Admission(slot=slot, request=request, blocks=blocks.tobytes())


def _prefill_command(loaded: LoadedModel, limits: Limits) -> shard_pb2.StepCommand:
    command = shard_pb2.StepCommand(repeat=1)
    block = 1
    for slot, length in enumerate(_chunk_lengths(limits)):
        blocks = np.arange(block, block + blocks_of(loaded, length), dtype=np.int32)
        block += len(blocks)
        tokens = np.arange(length, dtype=np.int32) % limits.vocab_size
        command.admit.append(_admission(slot, tokens, blocks))
        command.chunk_slot.append(slot)
        command.chunk_length.append(length)
    return command


def _decode_commands(limits: Limits) -> list[shard_pb2.StepCommand]:
    """A prompt of one token in place of the first sequence, then two decode steps."""
    start = shard_pb2.StepCommand(repeat=1, release=[0], chunk_slot=[0], chunk_length=[1])
    blocks = np.arange(1, 1 + min(3, limits.num_blocks - 1, limits.table_width), dtype=np.int32)
    start.admit.append(_admission(0, np.zeros(1, np.int32), blocks))
    step = shard_pb2.StepCommand(repeat=1, decode_changed=True, decode=[0])
    return [start, step, shard_pb2.StepCommand(repeat=1)]
