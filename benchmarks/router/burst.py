"""What a wave of requests costs the router while the device waits for it.

    python -m benchmarks.router.burst

Streams that begin together end together and come back together. Then the device is idle from the
result with their last tokens until the command that admits the next prompts. Here the router runs
in this process, in front of a shard that costs nothing; the clients' bytes lie in its sockets
before it looks at them, so that the figures are the router's own. Milliseconds, of the best wave
(others run on this machine):

deliver  from the result with the last tokens until every stream has its end
submit   from the first look at the sockets until the last request is in the queue
plan     from there until the command that admits them all is on its way
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import logging
import random
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import uvloop
from aiohttp import web
from benchmarks.configs import write_model_folder
from benchmarks.router.overhead import SHAPE, VOCAB, router_configuration, start
from benchmarks.server import end

from penstock.bench.stream_client import http_request
from penstock_proto.shard_pb2 import StepCommand, StepResult
from penstock_router import server
from penstock_router.api import make_app, make_runner
from penstock_router.api.sse import EventStream
from penstock_router.collector import freeze_gc
from penstock_router.config import RouterConfig
from penstock_router.engine import Engine
from penstock_router.logs import configure_logs
from penstock_router.metrics import Metrics
from penstock_router.request import GenerationRequest, Listener
from penstock_router.scheduler import Scheduler
from penstock_router.shard_client import ShardGroup
from penstock_router.text import TextModel

CASES = {"agent1000": (64, 1024, 1000), "fewshot2000": (32, 2048, 2000)}  # streams, ids, shared
NEW_TOKENS = 8
WAVES = 40
FIRST = 5  # waves that are not counted


@dataclass(slots=True)
class Clock:
    """When something of a wave was done last. Seconds of time.perf_counter()."""

    submit: float = 0.0
    admit: float = 0.0
    admitted: int = 0  # by that command
    result: float = 0.0
    end: float = 0.0
    streams: int = 0  # that have not ended
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Router:
    """A router of this process that is ready."""

    port: int
    clock: Clock


@contextlib.asynccontextmanager
async def router(model: Path) -> AsyncIterator[Router]:
    """The real parts, as `server.serve` puts them together, with a clock at their seams."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sock = folder / "shard-0.sock"
        options = ["--socket", f"{sock}", "--vocab-size", f"{VOCAB}", "--block-size", "64"]
        command = ["support.fake_shard", "--no-checks", "--num-blocks", "20000", *options]
        shard, _ = start(command, folder / "shard.log")
        stack.callback(end, shard)
        config = RouterConfig.from_json(router_configuration(model, sock, -1))
        shards = ShardGroup(config.shard_sockets)
        limits, *_ = await server._warm_up(config, shards)
        metrics = Metrics(limits.max_input_tokens, limits.max_total_tokens)
        scheduler = Scheduler(server._scheduling(config, limits))
        engine = Engine(scheduler, shards, limits, metrics, config.step_timeout)
        clock = attach_clock(engine, shards)
        runner = make_runner(make_app(config, engine, TextModel.load(f"{model}", None, 1), metrics))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine.start()
        freeze_gc()
        yield Router(runner.addresses[0][1], clock)
        await runner.cleanup()
        await shards.close()


def attach_clock(engine: Engine, shards: ShardGroup) -> Clock:
    """A clock that notes submissions, admissions, results and streams that end."""
    clock = Clock()
    submit, send, on_result = engine.submit, shards.send, shards.on_result
    close = EventStream.close

    def timed_submit(request: GenerationRequest, listener: Listener) -> int:
        number = submit(request, listener)
        clock.submit = time.perf_counter()
        return number

    def timed_send(command: StepCommand) -> None:
        send(command)
        if command.admit:
            clock.admit, clock.admitted = time.perf_counter(), len(command.admit)

    def timed_result(result: StepResult) -> None:
        clock.result = time.perf_counter()
        on_result(result)

    async def timed_close(stream: EventStream) -> None:
        await close(stream)
        clock.end = time.perf_counter()
        clock.streams -= 1
        if not clock.streams:
            clock.ended.set()

    engine.submit = timed_submit  # type: ignore[method-assign]
    shards.send = timed_send  # type: ignore[method-assign]
    shards.on_result = timed_result
    EventStream.close = timed_close  # type: ignore[method-assign, assignment]
    return clock


async def wave(
    running: Router, clients: list[socket.socket], requests: list[bytes]
) -> dict[str, float]:
    """One request of every client, all at once; when was what, in milliseconds."""
    clock = running.clock
    clock.ended, clock.streams = asyncio.Event(), len(clients)
    for client, request in zip(clients, requests, strict=True):
        client.sendall(request)
    begin = time.perf_counter()
    await clock.ended.wait()
    for client in clients:
        read_answer(client)
    return {
        "deliver": (clock.end - clock.result) * 1e3,
        "submit": (clock.submit - begin) * 1e3,
        "plan": (clock.admit - clock.submit) * 1e3,
        "admitted": clock.admitted,
    }


def read_answer(client: socket.socket) -> None:
    """Reads a stream to its end. Raises RuntimeError when that is not the end of a success."""
    answer = b""
    while not answer.endswith(b"\r\n0\r\n\r\n"):
        data = client.recv(1 << 16)
        answer += data
        if not data or not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"no stream: {answer[:500]!r}")


async def measure(
    running: Router, case: tuple[int, int, int], profile: cProfile.Profile | None
) -> dict[str, float]:
    """Each figure's best of WAVES waves."""
    streams, length, shared = case
    rng = random.Random(0)
    prefix = [rng.randrange(1000, 100_000) for _ in range(shared)]
    clients = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(streams)]
    waves: list[dict[str, float]] = []
    for number in range(FIRST + WAVES):
        tails = [
            [rng.randrange(1000, 100_000) for _ in range(length - shared)] for _ in range(streams)
        ]
        requests = [request(prefix + tail) for tail in tails]
        if profile is not None and number == FIRST:
            profile.enable()
        waves.append(await wave(running, clients, requests))
        await asyncio.sleep(0.01)
    if profile is not None:
        profile.disable()
    for client in clients:
        client.close()
    counted = waves[FIRST:]
    if any(each.pop("admitted") != streams for each in counted):
        raise RuntimeError("some waves were not admitted by one command")
    return {name: round(min(each[name] for each in counted), 2) for name in counted[0]}


def request(prompt: list[int]) -> bytes:
    """As benchmarks.load sends it."""
    body = {
        "model": SHAPE,
        "prompt": prompt,
        "max_tokens": NEW_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return http_request("127.0.0.1", "/v1/completions", orjson.dumps(body))


async def run(profile: cProfile.Profile | None) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        async with router(write_model_folder(SHAPE, Path(folder))) as running:
            for name, case in CASES.items():
                print(f"{name:<14}{json.dumps(await measure(running, case, profile))}", flush=True)


def main() -> None:
    """Runs the cases; the log lines go to a file, as they do in production."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.router.burst", description=__doc__)
    parser.add_argument("--profile", action="store_true", help="where the time goes, by function")
    profile = cProfile.Profile() if parser.parse_args().profile else None
    configure_logs()
    with tempfile.TemporaryFile("w") as lines:
        handler = logging.getLogger().handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(lines)
        uvloop.run(run(profile))
        handler.setStream(sys.stderr)  # what is still to be written goes to the file
    if profile is not None:
        profile.print_stats("tottime")


if __name__ == "__main__":
    main()
