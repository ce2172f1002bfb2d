"""The largest steps that there will be, run once: how long they take, and how much memory."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from penstock_proto import shard_pb2
from penstock_shard.memory import kv_cache
from penstock_shard.memory.memory import blocks_of
from penstock_shard.ranks.agreement import allocated, check_room
from penstock_shard.steps.graphs import buckets_for
from penstock_shard.steps.operations import operations
from penstock_shard.steps.runner import Runner
from penstock_shard.steps.slots import ShardLimits
from penstock_shard.weights.loaded_model import LoadedModel

NEUTRAL = shard_pb2.Sampling(top_p=1, typical_p=1, repetition_penalty=1)


class Ran(NamedTuple):
    """A step that warmup ran, and whether the logits that it looked at were numbers."""

    seconds: float
    finite: bool

    def and_then(self, later: Ran) -> Ran:
        """The time of the later one, what is known of both."""
        return Ran(later.seconds, self.finite and later.finite)


class Measured(NamedTuple):
    """Steps, and bytes of a GPU, 0 on a CPU."""

    prefill: Ran
    decode: Ran
    peak: int  # of these steps beside the cache, weights included
    sampling: int  # the same while everything is sampled that can be asked for every slot
    graphs: int  # an estimate


def graph_sizes(loaded: LoadedModel, limits: ShardLimits) -> tuple[int, ...]:
    """Decode rows to capture graphs for; none where steps are launched kernel by kernel."""
    if loaded.device.type != "cuda":
        return ()
    sizes = loaded.cuda_graphs
    if sizes is None:
        sizes = tuple(buckets_for(limits.max_slots))
    return tuple(sorted({min(size, limits.max_slots) for size in sizes if size > 0}))


def make_runner(loaded: LoadedModel, limits: ShardLimits) -> Runner:
    """A collective. Raises NoMemory on every rank where one has too little."""
    return allocated(loaded.group, loaded.device, lambda: _make_runner(loaded, limits))


def _make_runner(loaded: LoadedModel, limits: ShardLimits) -> Runner:
    cache = kv_cache.allocate(loaded.decoder, limits.num_blocks, loaded.block_size, loaded.device)
    ops = operations(loaded, loaded.decoder, limits, cache)
    return Runner(loaded.decoder, loaded.group, limits, cache, *ops, loaded.grammars)


def measure(loaded: LoadedModel, limits: ShardLimits) -> Measured:
    """The largest prefill step and a decode step, and what they take."""
    cuda = loaded.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(loaded.device)
    runner = make_runner(loaded, limits)
    check_room(loaded.group, loaded.device, _step_bytes(loaded, limits))
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
        if graph_sizes(loaded, limits):  # they keep an own copy of a step's activations
            graphs = peak - loaded.decoder.nbytes
        del runner
        torch.cuda.empty_cache()
    return Measured(prefill, decode, peak, sampling, graphs)


def _step_bytes(loaded: LoadedModel, limits: ShardLimits) -> int:
    """About what the largest step holds: three times its residual, and what comes out of the widest
    matrix of a block, twice for half of it."""
    model, world = loaded.model, loaded.group.world_size
    heads = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    width = 3 * model.hidden_size + max(heads, 3 * model.intermediate_size) // world
    return sum(_chunk_lengths(limits)) * width * loaded.dtype.itemsize


def _prefill(runner: Runner, loaded: LoadedModel, times: int) -> Ran:
    """The last time: in the first one kernels may be compiled, for half a minute. The router takes
    shards for dead after ten times as long."""
    ran = Ran(0.0, True)
    for _ in range(times):
        command = _prefill_command(loaded, runner.limits)
        command.release.extend(np.flatnonzero(runner.book.active).tolist())
        ran = ran.and_then(_run(runner, command))
    return ran


def _run(runner: Runner, command: shard_pb2.StepCommand) -> Ran:
    command.step = runner.book.next_step
    start = time.perf_counter()
    results = [pending.build() for pending in runner.execute(command)]
    seconds = time.perf_counter() - start
    refused = [refusal for result in results for refusal in result.refused]
    if any(refusal.kind == shard_pb2.Refusal.OUT_OF_MEMORY for refusal in refused):
        raise MemoryError("the log's last line has the size")
    return Ran(seconds, not refused)


def _admission(
    slot: int, tokens: NDArray[np.int32], blocks: NDArray[np.int32]
) -> shard_pb2.Admission:
    request = shard_pb2.Request(prompt=tokens.tobytes(), sampling=NEUTRAL)
    return shard_pb2.Admission(slot=slot, request=request, blocks=blocks.tobytes())


def _prefill_command(loaded: LoadedModel, limits: ShardLimits) -> shard_pb2.StepCommand:
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


def _decode_commands(limits: ShardLimits) -> list[shard_pb2.StepCommand]:
    """A prompt of one token in place of the first sequence, then two decode steps."""
    start = shard_pb2.StepCommand(repeat=1, release=[0], chunk_slot=[0], chunk_length=[1])
    blocks = np.arange(1, 1 + min(3, limits.num_blocks - 1, limits.table_width), dtype=np.int32)
    start.admit.append(_admission(0, np.zeros(1, np.int32), blocks))
    step = shard_pb2.StepCommand(repeat=1, decode_changed=True, decode=[0])
    return [start, step, shard_pb2.StepCommand(repeat=1)]


def _chunk_lengths(request: shard_pb2.WarmupRequest | ShardLimits) -> list[int]:
    """The largest step, in as few sequences as their longest length allows."""
    longest = request.max_sequence_length
    total = min(request.max_prefill_tokens, longest * request.max_slots)
    return [longest] * (total // longest) + ([total % longest] if total % longest else [])


def probe_blocks(loaded: LoadedModel, request: shard_pb2.WarmupRequest) -> int:
    """Scratch and the blocks of the largest step; three at least, for the decode steps."""
    lengths = _chunk_lengths(request)
    return 1 + max(sum(blocks_of(loaded, length) for length in lengths), 3)
