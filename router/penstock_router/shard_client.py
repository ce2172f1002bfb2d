"""The router's end of the wire: one bidirectional stream to every shard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
import grpc.aio

from penstock_proto.shard_pb2 import (
    HealthRequest,
    InfoRequest,
    InfoResponse,
    StepCommand,
    StepError,
    StepResult,
    WarmupRequest,
    WarmupResponse,
)
from penstock_proto.shard_pb2_grpc import ShardStub

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # a full admission burst: 4 bytes a prompt token and its table
RUN = "/penstock_proto.Shard/Run"


class ShardFailure(Exception):
    """A shard reported an error, or its stream ended. The message names the rank."""


class ShardGroup:
    """The shards of one model. They run in lockstep: each receives every command.

    on_result is called with the results of rank 0, in order; on_failure once, with the reason.
    Both run on the event loop.
    """

    def __init__(self, sockets: Sequence[str]) -> None:
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_retries", 0),
        ]
        self._channels = [grpc.aio.insecure_channel(f"unix:{s}", options) for s in sockets]
        self._stubs = [ShardStub(channel) for channel in self._channels]  # type: ignore[no-untyped-call]
        self._outboxes: list[asyncio.Queue[bytes | None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self.on_result: Callable[[StepResult], None] = lambda result: None
        self.on_failure: Callable[[ShardFailure], None] = lambda failure: None

    @property
    def world_size(self) -> int:
        """How many shards there are."""
        return len(self._stubs)

    async def info(self, timeout: float) -> list[InfoResponse]:
        """What every rank has loaded."""
        calls = (s.Info(InfoRequest(), timeout=timeout, wait_for_ready=True) for s in self._stubs)
        return await self._gather(calls, "Info")

    async def warmup(self, request: WarmupRequest) -> list[WarmupResponse]:
        """Run the largest step on all ranks and allocate the KV cache."""
        return await self._gather((s.Warmup(request) for s in self._stubs), "Warmup")

    async def health(self, timeout: float) -> None:
        """Raise ShardFailure unless every shard process answers."""
        await self._gather(
            (s.Health(HealthRequest(), timeout=timeout) for s in self._stubs), "Health"
        )

    def start(self) -> None:
        """Open the streams."""
        for rank, channel in enumerate(self._channels):
            outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
            call = channel.stream_stream(
                RUN,
                request_serializer=None,  # serialised once for all ranks
                response_deserializer=StepResult.FromString,
            )(_drain(outbox))
            self._outboxes.append(outbox)
            self._tasks.append(asyncio.create_task(self._receive(rank, call)))

    def send(self, command: StepCommand) -> None:
        """Send a command to every rank."""
        data = command.SerializeToString()
        for outbox in self._outboxes:
            outbox.put_nowait(data)

    async def close(self, timeout: float = 5.0) -> None:
        """End the streams; each shard exits when its stream does."""
        self._closing = True
        for outbox in self._outboxes:
            outbox.put_nowait(None)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for channel in self._channels:
            await channel.close()

    async def _receive(self, rank: int, call: AsyncIterator[StepResult]) -> None:
        try:
            async for result in call:
                if result.HasField("error"):
                    return self._fail(rank, _describe(result))
                if rank == 0:
                    self.on_result(result)
            self._fail(rank, "its stream ended")
        except grpc.aio.AioRpcError as error:
            self._fail(rank, f"its stream broke: {error.code().name}: {error.details()}")

    def _fail(self, rank: int, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self.on_failure(ShardFailure(f"shard {rank}: {reason}"))

    async def _gather(self, calls: object, name: str) -> list:  # type: ignore[type-arg]
        results = await asyncio.gather(*calls, return_exceptions=True)  # type: ignore[misc]
        for rank, result in enumerate(results):
            if isinstance(result, grpc.aio.AioRpcError):
                raise ShardFailure(f"shard {rank}: {name} failed: {result.details()}") from result
            if isinstance(result, BaseException):
                raise result
        return list(results)


async def _drain(outbox: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (data := await outbox.get()) is not None:
        yield data


def _describe(result: StepResult) -> str:
    kind = StepError.Kind.Name(result.error.kind)
    return f"step {result.step} failed: {kind}: {result.error.message}"
