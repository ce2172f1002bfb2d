"""The largest steps that there will be, run once: how long they take, and how much memory."""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from penstock_proto import shard_pb2
from penstock_shard.memory import kv_cache
from penstock_shard.memory.graph_memory import capture_some
from penstock_shard.memory.memory import blocks_of
from penstock_shard.memory.out_of_memory import give_back
from penstock_shard.memory.peak import Peak, settled_bytes
from penstock_shard.phases import phase
from penstock_shard.ranks.agreement import allocated, check_room
from penstock_shard.sampling.rehearsal import rehearse
from penstock_shard.steps.graphs import Capture, GraphSizes, buckets_for
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.operations import operations
from penstock_shard.steps.runner import Runner
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
    """Steps, and bytes: of a GPU; on a CPU `workspace` and `graphs` are 0, and `row` is a guess."""

    prefill: Ran
    decode: Ran
    row: int  # that a step which is no graph takes for each of its rows
    workspace: int  # that the largest step takes, or draws for all slots with all there is
    graphs: int
    free: int  # for the cache
    beside_steps: bool  # that counts what steps take, so that smaller ones leave more: on GPUs

    def __str__(self) -> str:
        workspace, graphs, free = (size >> 20 for size in (self.workspace, self.graphs, self.free))
        taken = f"steps and draws take {workspace} MiB, graphs {graphs}, "
        return f"{taken if self.beside_steps else ''}{free} MiB are free for the KV cache"


def graph_sizes(loaded: LoadedModel, limits: ShardLimits) -> GraphSizes:
    """Steps to capture; none where they are launched kernel by kernel."""
    if loaded.device.type != "cuda":
        return GraphSizes(())
    sizes = loaded.cuda_graphs
    if sizes is None:
        sizes = tuple(buckets_for(limits.max_slots))
    decode = sorted({min(size, limits.max_slots) for size in sizes if size > 0})
    return GraphSizes(tuple(decode), limits.max_prefill_tokens)


def make_runner(loaded: LoadedModel, limits: ShardLimits) -> Runner:
    """A collective. Raises NoMemory on every rank where one has too little."""
    return allocated(loaded.group, loaded.device, lambda: _make_runner(loaded, limits))


def _make_runner(loaded: LoadedModel, limits: ShardLimits) -> Runner:
    cache = kv_cache.allocate(loaded.decoder, limits.num_blocks, loaded.block_size, loaded.device)
    ops = operations(loaded, loaded.decoder, limits, cache)
    return Runner(loaded.decoder, loaded.group, limits, cache, *ops, loaded.grammars)


def measure(loaded: LoadedModel, limits: ShardLimits, graphs: GraphSizes) -> Measured:
    """The largest prefill step and a decode step, and what they take, with graphs and beside them.

    All that will stand beside the cache is there when the rest is counted. A collective. Raises
    NoMemory on every rank where one knows before the others wait for it.
    """
    group, device = loaded.group, loaded.device
    rows = sum(_chunk_lengths(limits))
    give_back(device)
    with phase("warm-up"):
        runner = make_runner(loaded, limits)
        check_room(group, device, rows * _row_bytes(loaded))
        # Else the first prompt that parts from another within a block waits for a compiler.
        runner.copy_blocks([(1, 2)])
        with Peak(device) as steps:
            prefill = _prefill(runner, loaded, 2 if device.type == "cuda" else 1)
            decode = _decode(runner)
        with Peak(device) as draws:  # rank 0's, and the others hear how it went
            allocated(group, device, lambda: _rehearse(runner, loaded))
    workspace, captured, rest = max(steps.size, draws.size), 0, 0
    if graphs.decode:
        check_room(group, device, workspace)  # a captured step has run once before
        used = partial(settled_bytes, device)
        before = used()  # and nothing that stays lies in what was tried
        with phase("capture"), torch.inference_mode():
            made = runner.graphs_of(graphs)
            rest = capture_some(made.kinds, Capture(), used)
            captured = max(0, used() - before)
    to_come = workspace + rest - runner.cache.nbytes
    free = kv_cache.free_bytes(device, loaded.shares, group.world_size, to_come)
    on_gpu = device.type == "cuda"
    row = -(-steps.size // rows) or _row_bytes(loaded)
    return Measured(prefill, decode, row, workspace, captured + rest, free, on_gpu)


def _row_bytes(loaded: LoadedModel) -> int:
    """About what a step holds for each row: three times its residual, and what comes out of the
    widest matrix of a block, twice for half of it."""
    model, world = loaded.model, loaded.group.world_size
    heads = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    width = 3 * model.hidden_size + max(heads, 3 * model.intermediate_size) // world
    return width * loaded.dtype.itemsize


def _prefill(runner: Runner, loaded: LoadedModel, times: int) -> Ran:
    """The last time: in the first one kernels may be compiled, for half a minute. The router takes
    shards for dead after ten times as long."""
    ran = Ran(0.0, True)
    for _ in range(times):
        command = _prefill_command(loaded, runner.limits)
        command.release.extend(np.flatnonzero(runner.book.active).tolist())
        ran = ran.and_then(_run(runner, command))
    return ran


def _rehearse(runner: Runner, loaded: LoadedModel) -> bool:
    if runner.sampling is not None and runner.device.type == "cuda":
        rehearse(runner.sampling, loaded.dtype)
    return True


def _decode(runner: Runner) -> Ran:
    start, step, again = _decode_commands(runner.limits)
    decode = _run(runner, start)
    if runner.limits.max_sequence_length >= 3:
        first = _run(runner, step)  # the first one of its shape is slower
        decode = decode.and_then(first).and_then(_run(runner, again))
    return decode


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
