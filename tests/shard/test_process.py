"""The shard as a process: its contract with the launcher and the router."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock_proto import shard_pb2
from penstock_shard.server import MESSAGE_FLOOR
from support.shard_driver import (
    TIMEOUT,
    Shards,
    admission,
    running_shards,
    shard_config,
    start_shard,
)

PROMPTS = [[5, 6, 7, 8, 9], [10], [11, 12, 13]]
Run = Callable[..., Any]


def records(log: Path) -> list[dict[str, Any]]:
    """Every line must be a JSON object."""
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def shards(checkpoint: Callable[[str], Path], tmp_path: Path) -> Iterator[Shards]:
    with running_shards(checkpoint("llama3"), tmp_path / "s") as shards:
        yield shards


def socket_of(shards: Shards) -> Path:
    log = shards.logs[0]
    return log.parent / "s" / "shard-0.sock"


def code_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()


def test_a_whole_life(shards: Shards) -> None:
    """Ready, asked, warmed up, run, ended by the router; garbage and misuse in between."""
    path = socket_of(shards)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    info = shards.info()
    assert (info.rank, info.world_size, info.device, info.dtype) == (0, 1, "cpu", "float32")
    assert (info.architecture, info.vocab_size, info.block_size) == ("LlamaForCausalLM", 301, 8)
    assert info.max_position_embeddings == 512 and info.device_name
    assert info.kv_bytes_per_token == 3 * 2 * 2 * 16 * 4  # layers, K and V, heads, width, bytes
    send_garbage(path)
    too_early = shards.stubs[0].Run(iter([]), timeout=TIMEOUT)
    assert code_of(lambda: next(too_early)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "Run needs Warmup first",
    )
    [response] = shards.warm_up()
    assert response.num_blocks == 1024 // 8 + 1
    assert response.prefill_seconds > 0 and response.decode_seconds > 0
    assert code_of(shards.warm_up) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "Warmup was called before",
    )
    first = shards.generate(PROMPTS, 6)
    second_stream = shards.stubs[0].Run(iter([]), timeout=TIMEOUT)
    assert code_of(lambda: next(second_stream))[1] == "Run is open already"
    send_garbage(path)
    shards.stubs[0].Health(shard_pb2.HealthRequest(), timeout=TIMEOUT)
    assert shards.generate(PROMPTS, 6) == first  # the garbage and the second stream changed nothing
    assert shards.close() == [0]
    assert not path.exists()
    levels = {record["level"] for record in records(shards.logs[0])}
    assert levels == {"INFO"}


PICKLE = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93"
STRANGERS = (
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"", "UNIMPLEMENTED"),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"", "UNIMPLEMENTED"),
    ("penstock_proto.Shard/Warmup", PICKLE, "INTERNAL"),
    ("penstock_proto.Shard/Warmup", bytes(MESSAGE_FLOOR + (5 << 20)), "RESOURCE_EXHAUSTED"),
)


def test_strangers_on_its_socket(shards: Shards) -> None:
    """Nothing lists what it does, unpickles or takes what is too large; and it lives on."""
    with grpc.insecure_channel(f"unix:{socket_of(shards)}") as channel:
        for method, data, code in STRANGERS:
            ask = functools.partial(channel.unary_unary(f"/{method}"), data, timeout=TIMEOUT)
            assert code_of(ask)[0].name == code, method
    assert shards.info().rank == 0
    assert shards.warm_up()[0].num_blocks > 1


def send_garbage(path: Path) -> None:
    """Not HTTP/2; an HTTP/2 preface with a broken frame; and nothing at all."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for junk in (os.urandom(5000), preface + b"\xff" * 500, b""):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect(str(path))
            try:
                client.sendall(junk)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass  # hung up on us: quite right


def test_sigterm_ends_it_in_the_middle_of_a_stream(shards: Shards) -> None:
    shards.warm_up()
    shards.generate(PROMPTS, 3)
    shards.processes[0].send_signal(signal.SIGTERM)
    assert shards.processes[0].wait(TIMEOUT) == 0
    assert not socket_of(shards).exists()


def test_a_bad_command_is_answered_and_ends_the_shard(shards: Shards) -> None:
    shards.warm_up()
    shards.generate(PROMPTS, 2)
    shards.send(admit=[admission(0, [1], [10_000])])
    result = shards.receive()
    reason = "admit.blocks must be in [1, 129), not 10000"
    assert result.error.kind == shard_pb2.StepError.BAD_COMMAND
    assert result.error.message == reason and not result.token
    assert shards.processes[0].wait(TIMEOUT) == 1
    last = records(shards.logs[0])[-1]
    assert last["level"] == "ERROR" and last["message"] == reason
    assert not socket_of(shards).exists()


def test_two_ranks_give_the_tokens_of_one(
    checkpoint: Callable[[str], Path], tmp_path: Path, shards: Shards
) -> None:
    with running_shards(checkpoint("llama3"), tmp_path / "t", world_size=2) as pair:
        pair.warm_up()
        shards.warm_up()
        assert pair.info(1).rank == 1
        # Each rank has half of the heads.
        assert pair.info(0).kv_bytes_per_token * 2 == shards.info().kv_bytes_per_token
        assert pair.generate(PROMPTS, 8) == shards.generate(PROMPTS, 8)
        assert pair.close() == [0, 0]
        assert not list((tmp_path / "t").glob("*.sock"))


def test_memory_that_is_too_small_names_the_option(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """On every rank, and both end."""
    with running_shards(checkpoint("llama3"), tmp_path / "s", world_size=2) as pair:
        request = shard_pb2.WarmupRequest(
            max_prefill_tokens=32,
            max_slots=4,
            max_sequence_length=64,
            max_batch_total_tokens=10**12,
        )
        calls = [stub.Warmup.future(request, timeout=TIMEOUT) for stub in pair.stubs]
        for call in calls:
            code, message = code_of(call.result)
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "--max-batch-total-tokens 1000000000000 needs" in message
        assert [process.wait(TIMEOUT) for process in pair.processes] == [1, 1]
        for log in pair.logs:
            assert "--max-batch-total-tokens" in records(log)[-1]["message"]


def test_starts_that_must_fail(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Exit code 1, nothing on the ready pipe, the reason in the last line."""
    model = checkpoint("llama3")
    long_folder = tmp_path / ("x" * 100)
    long_folder.mkdir()
    cases = {
        "unknown": (
            shard_config(model, tmp_path) | {"speed": 11},
            "shard configuration has unknown keys ['speed']",
        ),
        "folder": (shard_config(tmp_path, tmp_path), "has no config.json, so it is no model"),
        "socket": (shard_config(model, long_folder), "choose a shorter --shard-uds-path"),
    }
    started = {
        name: start_shard(config, tmp_path / f"{name}.log") for name, (config, _) in cases.items()
    }
    for name, (process, pipe) in started.items():
        with os.fdopen(pipe) as ready:
            assert ready.read() == ""
        assert process.wait(TIMEOUT) == 1
        last = records(tmp_path / f"{name}.log")[-1]
        assert last["level"] == "ERROR" and cases[name][1] in last["message"]
