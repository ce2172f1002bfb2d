"""Drives real shard processes over gRPC, as the router does: for tests that need real tensors.

with running_shards(model_folder, socket_folder, world_size=2) as shards:
    shards.warm_up(max_slots=8)
    tokens = shards.generate([[1, 2, 3], [4, 5]], max_new_tokens=8)
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from penstock_proto import shard_pb2, shard_pb2_grpc

REQUEST_FIELDS = frozenset(("prompt_logprobs", "prompt_logprobs_start", "prompt_top_n"))
TIMEOUT = 180.0  # seconds for anything that a tiny model does, kernels that are compiled included


def neutral(**changes: Any) -> shard_pb2.Sampling:
    """Greedy without filters or penalties, with some fields changed."""
    values: dict[str, Any] = {"top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0}
    return shard_pb2.Sampling(**(values | changes))


def admission(
    slot: int,
    tokens: Sequence[int],
    blocks: Sequence[int],
    sampling: shard_pb2.Sampling | None = None,
    **fields: Any,
) -> shard_pb2.Admission:
    """An Admission from Python lists; the last `generated` of the tokens were generated."""
    packed = np.array(tokens, np.int32).tobytes()
    prompt = len(packed) - 4 * fields.pop("generated", 0)
    asked = {name: fields.pop(name) for name in REQUEST_FIELDS & fields.keys()}
    return shard_pb2.Admission(
        slot=slot,
        request=shard_pb2.Request(prompt=packed[:prompt], sampling=sampling or neutral(), **asked),
        generated=packed[prompt:],
        blocks=np.array(blocks, np.int32).tobytes(),
        **fields,
    )


class _Stream:
    """The Run stream of one shard: commands in, results out."""

    def __init__(self, stub: shard_pb2_grpc.ShardStub) -> None:
        self._commands: queue.SimpleQueue[shard_pb2.StepCommand | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[shard_pb2.StepResult | BaseException | None] = (
            queue.SimpleQueue()
        )
        call = stub.Run(iter(self._commands.get, None))
        threading.Thread(target=self._collect, args=(call,), daemon=True).start()

    def _collect(self, call: Any) -> None:
        try:
            for result in call:
                self._results.put(result)
            self._results.put(None)
        except grpc.RpcError as error:
            self._results.put(error)

    def send(self, command: shard_pb2.StepCommand | None) -> None:
        self._commands.put(command)

    def receive(self) -> shard_pb2.StepResult | None:
        """The next result; None when the stream has ended. Raises grpc.RpcError if it broke."""
        result = self._results.get(timeout=TIMEOUT)
        if isinstance(result, BaseException):
            raise result
        return result


@dataclass
class Shards:
    """Running shard processes, one a rank."""

    processes: list[subprocess.Popen[str]]
    stubs: list[shard_pb2_grpc.ShardStub]
    logs: list[Path]
    num_blocks: int = 0
    block_size: int = 0
    _streams: list[_Stream] = field(default_factory=list)
    _step: int = 1

    def info(self, rank: int = 0) -> shard_pb2.InfoResponse:
        return self.stubs[rank].Info(shard_pb2.InfoRequest(), timeout=TIMEOUT)

    def warm_up(self, **changes: int) -> list[shard_pb2.WarmupResponse]:
        """Call Warmup on every rank at the same time."""
        sizes = {
            "max_prefill_tokens": 64,
            "max_slots": 8,
            "max_sequence_length": 128,
            "max_batch_total_tokens": 1024,
            "max_top_n": 5,
        }
        request = shard_pb2.WarmupRequest(**(sizes | changes))
        calls = [stub.Warmup.future(request, timeout=TIMEOUT) for stub in self.stubs]
        responses = [call.result() for call in calls]
        self.num_blocks = responses[0].num_blocks
        self.block_size = self.info().block_size
        return responses

    def send(self, **fields: Any) -> None:
        """Send one command to every rank; `step` is filled in."""
        if not self._streams:
            self._streams = [_Stream(stub) for stub in self.stubs]
        fields.setdefault("repeat", 1)
        command = shard_pb2.StepCommand(step=self._step, **fields)
        self._step += command.repeat
        for stream in self._streams:
            stream.send(command)

    def receive(self) -> shard_pb2.StepResult:
        """The result of the next step from rank 0; the other ranks must have acknowledged it."""
        results = [stream.receive() for stream in self._streams]
        first = results[0]
        assert first is not None, "the stream ended"
        for result in results[1:]:
            assert result is not None and result.step == first.step
            assert not result.token
        return first

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sequence[shard_pb2.Sampling] | None = None,
    ) -> list[list[int]]:
        """Prefill all prompts in one step, then decode, always one step ahead of the results."""
        width = -(-max(len(p) + max_new_tokens for p in prompts) // self.block_size)
        slots = list(range(len(prompts)))
        self.send(
            admit=[
                admission(
                    slot,
                    prompts[slot],
                    range(1 + slot * width, 1 + (slot + 1) * width),
                    sampling[slot] if sampling else None,
                )
                for slot in slots
            ],
            chunk_slot=slots,
            chunk_length=[len(p) for p in prompts],
        )
        for step in range(1, max_new_tokens):
            self.send(decode_changed=step == 1, decode=slots if step == 1 else [])
        rows = [self.receive().token for _ in range(max_new_tokens)]
        self.send(release=slots, decode_changed=True)
        self.receive()
        return [[row[slot] for row in rows] for slot in slots]

    def close(self) -> list[int]:
        """End the Run streams, as the router does. Returns the exit codes."""
        for stream in self._streams:
            stream.send(None)
        return [process.wait(TIMEOUT) for process in self.processes]


class ShardSlots:
    """Shards whose slots own blocks for so many tokens each: commands are sent, and waited for."""

    def __init__(self, shards: Shards, slots: int, tokens: int) -> None:
        width = -(-tokens // shards.block_size)
        self._shards = shards
        self._blocks = [range(1 + slot * width, 1 + (slot + 1) * width) for slot in range(slots)]

    def admission(
        self, slot: int, tokens: Sequence[int], sampling: shard_pb2.Sampling, **fields: Any
    ) -> shard_pb2.Admission:
        return admission(slot, tokens, self._blocks[slot], sampling, **fields)

    def run(self, **fields: Any) -> list[shard_pb2.StepResult]:
        self._shards.send(**fields)
        return [self._shards.receive()]

    def release(self, *slots: int) -> None:
        self.run(release=slots, decode_changed=True)


def start_shard(
    config: dict[str, Any], log: Path, rank: int = 0, world_size: int = 1
) -> tuple[subprocess.Popen[str], int]:
    """Start one shard process that logs to a file. Returns it and the end of its ready pipe."""
    read, write = os.pipe()
    environment = os.environ | {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "PENSTOCK_READY_FD": str(write),
        "OMP_NUM_THREADS": "1",
    }
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock_shard"],
            stdin=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
            pass_fds=(write,),
        )
    os.close(write)
    assert process.stdin is not None
    process.stdin.write(json.dumps(config))
    process.stdin.close()
    return process, read


def shard_config(model: Path, sockets: Path, **changes: Any) -> dict[str, Any]:
    """What the launcher writes to a shard's standard input."""
    return {
        "model_path": str(model),
        "dtype": "float32",
        "device": "cpu",
        "load_format": "auto",
        "quantize": None,
        "kv_cache_dtype": "auto",
        "kv_block_size": 8,
        "cuda_memory_fraction": 1.0,
        "cuda_graphs": None,
        "disable_dependent_launch": False,
        "socket_folder": str(sockets),
    } | changes


@contextlib.contextmanager
def running_shards(
    model: Path, sockets: Path, world_size: int = 1, **changes: Any
) -> Iterator[Shards]:
    """Start the ranks, wait until all are ready, and end those that are left at the end."""
    sockets.mkdir(mode=0o700, exist_ok=True)
    config = shard_config(model, sockets, **changes)
    ranks = range(world_size)
    logs = [sockets.parent / f"{sockets.name}-{rank}.log" for rank in ranks]
    started = [start_shard(config, logs[rank], rank, world_size) for rank in ranks]
    processes = [process for process, _ in started]
    try:
        for rank in ranks:
            with os.fdopen(started[rank][1]) as pipe:
                if pipe.readline() != "{}\n":
                    raise AssertionError(f"shard did not start: {logs[rank].read_text()}")
        channels = [grpc.insecure_channel(f"unix:{sockets}/shard-{rank}.sock") for rank in ranks]
        stubs = [shard_pb2_grpc.ShardStub(channel) for channel in channels]
        yield Shards(processes, stubs, logs)
    finally:
        for process in processes:
            process.kill()
            process.wait()
