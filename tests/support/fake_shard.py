"""A shard without a model: the real gRPC service on a Unix socket, with `fake_model` behind it.

async with fake_shard(socket, FakeShardConfig()) as shard: ...
python -m support.fake_shard --socket /tmp/x/shard-0.sock --help     (with PYTHONPATH=tests)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc

from penstock_proto import shard_pb2_grpc
from penstock_proto.shard_pb2 import (
    CompileRequest,
    CompileResponse,
    HealthRequest,
    HealthResponse,
    InfoRequest,
    InfoResponse,
    StepCommand,
    StepError,
    StepResult,
    WarmupRequest,
    WarmupResponse,
)
from support.fake_model import (
    BadCommand,
    FakeModelConfig,
    FakeShardModel,
    expected_tokens,
)
from support.zero_cost_model import ZeroCostModel

__all__ = [
    "FakeModelConfig",
    "FakeShard",
    "FakeShardConfig",
    "FakeShardModel",
    "Fault",
    "expected_tokens",
    "fake_shard",
]

FAULTS = ("internal", "out_of_memory", "bad_command", "hang", "close", "exit")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at which step: a StepError, no answer, a closed stream, a dead process."""

    kind: str
    step: int

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Reads KIND@STEP. Raises ValueError for anything else."""
        kind, _, step = text.partition("@")
        if kind not in FAULTS or not step.isdigit():
            raise ValueError(f"fault {text!r}: expected one of {', '.join(FAULTS)}, '@', a step")
        return cls(kind, int(step))


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeShardConfig:
    """How the fake shard behaves."""

    model: FakeModelConfig = field(default_factory=FakeModelConfig)
    rank: int = 0
    world_size: int = 1
    checks: bool = True  # False: ZeroCostModel
    step_seconds: float = 0.0  # each step takes so long
    fault: Fault | None = None


class FakeShard(shard_pb2_grpc.ShardServicer):
    """The servicer. `model` is open to tests: what it holds after a run is evidence."""

    def __init__(self, config: FakeShardConfig) -> None:
        self.config = config
        self.model = FakeShardModel(config.model) if config.checks else ZeroCostModel(config.model)
        self.deaf = False  # it answers no Health, as a process that is stopped
        self.ended = asyncio.Event()  # the Run stream is over: a real shard would exit

    async def Info(self, request: InfoRequest, context: grpc.aio.ServicerContext) -> InfoResponse:
        model = self.config.model
        return InfoResponse(
            rank=self.config.rank,
            world_size=self.config.world_size,
            device="cpu",
            device_name="fake",
            dtype="float32",
            architecture="FakeForCausalLM",
            vocab_size=model.vocab_size,
            max_position_embeddings=model.max_position_embeddings,
            block_size=model.block_size,
            kv_bytes_per_token=8,
            kv_cache_dtype="float32",
            weight_bytes=0,
        )

    async def Warmup(
        self, request: WarmupRequest, context: grpc.aio.ServicerContext
    ) -> WarmupResponse:
        try:
            return self.model.warmup(request)
        except BadCommand as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            raise AssertionError("abort raises") from error

    async def Health(
        self, request: HealthRequest, context: grpc.aio.ServicerContext
    ) -> HealthResponse:
        while self.deaf:
            await asyncio.sleep(0.01)
        return HealthResponse()

    async def CompileGrammar(
        self, request: CompileRequest, context: grpc.ServicerContext
    ) -> CompileResponse:
        return CompileResponse(outcome=CompileResponse.READY, seconds=0.001)

    async def Run(
        self, requests: AsyncIterator[StepCommand], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[StepResult]:
        try:
            async for command in requests:
                for result in self.model.run(command):
                    if self.config.step_seconds:
                        await asyncio.sleep(self.config.step_seconds)
                        result.device_ns = int(self.config.step_seconds * 1e9)
                    if self.config.fault and result.step == self.config.fault.step:
                        if failure := await self._fail(self.config.fault):
                            yield failure
                        return
                    yield self._of_rank(result)
                    if result.HasField("error"):
                        return
        finally:
            self.ended.set()

    def _of_rank(self, result: StepResult) -> StepResult:
        """Only rank 0 returns tokens."""
        if self.config.rank == 0:
            return result
        error = result.error if result.HasField("error") else None
        return StepResult(step=result.step, device_ns=result.device_ns, error=error)

    async def _fail(self, fault: Fault) -> StepResult | None:
        """The result that carries the fault; None: the stream is closed without one."""
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "exit":
            os._exit(70)
        if fault.kind == "close":
            return None
        message = f"injected {fault.kind} at step {fault.step}"
        return StepResult(
            step=fault.step, error=StepError(kind=fault.kind.upper(), message=message)
        )


@contextlib.asynccontextmanager
async def fake_shard(
    socket: str | os.PathLike[str], config: FakeShardConfig | None = None
) -> AsyncIterator[FakeShard]:
    """Serves on a Unix socket, in this event loop, until the block ends."""
    servicer = FakeShard(config or FakeShardConfig())
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    )
    shard_pb2_grpc.add_ShardServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{os.fspath(socket)}")
    await server.start()
    try:
        yield servicer
    finally:
        await server.stop(grace=None)


async def serve(socket: str, config: FakeShardConfig) -> None:
    """Serves until the Run stream ends or SIGTERM, as a shard does."""
    async with fake_shard(socket, config) as servicer:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, servicer.ended.set)
        if fd := os.environ.get("PENSTOCK_READY_FD"):
            with os.fdopen(int(fd), "w") as ready:
                ready.write("{}\n")
        await servicer.ended.wait()


def parse_arguments() -> tuple[str, FakeShardConfig]:
    """The command line: one option a field of the two configurations."""
    model, shard = FakeModelConfig(), FakeShardConfig()
    parser = argparse.ArgumentParser(prog="python -m support.fake_shard", description=__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--vocab-size", type=int, default=model.vocab_size)
    parser.add_argument("--block-size", type=int, default=model.block_size)
    parser.add_argument("--num-blocks", type=int, default=model.num_blocks)
    parser.add_argument("--max-position-embeddings", type=int, default=8192)
    parser.add_argument("--eos-token", type=int, default=None)
    parser.add_argument("--eos-every", type=int, default=0)
    parser.add_argument("--forced-every", type=int, default=0)
    parser.add_argument("--nan-every", type=int, default=0)
    parser.add_argument("--rank", type=int, default=shard.rank)
    parser.add_argument("--world-size", type=int, default=shard.world_size)
    parser.add_argument("--step-seconds", type=float, default=shard.step_seconds)
    parser.add_argument("--no-checks", dest="checks", action="store_false")
    parser.add_argument("--fault", type=Fault.parse, default=None, metavar="KIND@STEP")
    values = vars(parser.parse_args())
    names = [name for name in FakeModelConfig.__dataclass_fields__ if name in values]
    config = FakeModelConfig(**{name: values.pop(name) for name in names})
    return values.pop("socket"), FakeShardConfig(model=config, **values)


def main() -> None:
    """Runs the fake shard as a process."""
    import uvloop

    uvloop.run(serve(*parse_arguments()))


if __name__ == "__main__":
    main()
