"""The router's end of the wire: one bidirectional stream to every shard."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio

from penstock_proto.shard_pb2 import (
    CompileRequest,
    CompileResponse,
    HealthRequest,
    InfoRequest,
    InfoResponse,
    StepCommand,
    StepError,
    StepResult,
    TokenizerPart,
    WarmupRequest,
    WarmupResponse,
)
from penstock_proto.shard_pb2_grpc import ShardStub
from penstock_router.request import GenerationFailed

T = TypeVar("T")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # a full admission burst: 4 bytes a prompt token and its table
RECONNECT_MS = 200
RUN = "/penstock_proto.Shard/Run"
# A shard that has said nothing for so long is asked whether it lives; Health needs no step.
PROBE_SECONDS = 1.0
PROBE_TIMEOUT = 2.0
WARM_UP_SECONDS = 1800.0  # compiling and capturing everything for the first time takes minutes
MISSES = 2  # in a row, and it does not answer; one may be a busy machine


COMPILE_TIMEOUT = 10.0  # seconds; a shard answers in two
PIECE_BYTES = 4 << 20  # of a tokenizer, that a message carries


class ShardFailure(Exception):
    """A shard reported an error, or its stream ended. The message names the rank."""


class ShardSilent(ShardFailure):
    """A shard gave no answer in time. The message names the rank."""


class ShardGroup:
    """The shards of one model. They run in lockstep: each receives every command.

    on_result is called with the results of rank 0, in order; on_failure once, with the reason;
    on_trouble with the reason while a shard that may live does not answer, and with an empty text
    when all do again. They run on the event loop.
    """

    def __init__(
        self,
        sockets: Sequence[str],
        remote: Sequence[str] = (),
        keys: Mapping[str, str] | None = None,
    ) -> None:
        """sockets: paths. remote: of shards on other hosts, whose ranks are behind those, the name
        of the host's certificate and the address, `name@address:port`; keys: files for them."""
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_retries", 0),
            # a shard that loads has no socket yet, and by default is looked for ever more seldom
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
            ("grpc.min_reconnect_backoff_ms", RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
        ]
        self._channels = [grpc.aio.insecure_channel(f"unix:{s}", options) for s in sockets]
        if keys is not None:
            credentials = _credentials(keys)
            for name, _, address in (one.partition("@") for one in remote):
                named = [*options, ("grpc.ssl_target_name_override", name)]
                self._channels.append(grpc.aio.secure_channel(address, credentials, named))
        self._stubs = [ShardStub(channel) for channel in self._channels]  # type: ignore[no-untyped-call]
        self._outboxes: list[asyncio.Queue[bytes | None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._heard = [False] * len(self._stubs)  # since the last look
        self.on_result: Callable[[StepResult], None] = lambda result: None
        self.on_failure: Callable[[ShardFailure], None] = lambda failure: None
        self.on_trouble: Callable[[str], None] = lambda reason: None
        self._prober: asyncio.Task[None] | None = None

    @property
    def world_size(self) -> int:
        """How many shards there are."""
        return len(self._stubs)

    async def info(self) -> list[InfoResponse]:
        """What every rank has loaded. Waits while they load: the launcher ends what never does."""
        calls = (s.Info(InfoRequest(), wait_for_ready=True) for s in self._stubs)
        return await self._gather(calls, "Info")

    async def warmup(self, request: WarmupRequest) -> list[WarmupResponse]:
        """Run the largest step on all ranks and allocate the KV cache.

        Raises ShardFailure when one fails, or has not done so in WARM_UP_SECONDS.
        """
        calls = (s.Warmup(request, timeout=WARM_UP_SECONDS) for s in self._stubs)
        return await self._gather(calls, "Warmup")

    async def load_tokenizer(self, definition: bytes, eos: Sequence[int]) -> str:
        """Give rank 0 a tokenizer.json, for grammars. Returns why there are none with it, or
        nothing."""
        places = range(0, len(definition), PIECE_BYTES)
        parts = [TokenizerPart(json=definition[at : at + PIECE_BYTES]) for at in places]
        try:
            pieces = iter([*parts, TokenizerPart(eos=eos)])
            response = await self._stubs[0].LoadTokenizer(pieces, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return f"shard 0: {error.details()}"
        return str(response.error)

    async def compile(self, request: CompileRequest) -> CompileResponse:
        """Have rank 0 compile a grammar. Raises GenerationFailed where it does not answer."""
        try:
            response: CompileResponse = await self._stubs[0].CompileGrammar(
                request, timeout=COMPILE_TIMEOUT
            )
        except grpc.aio.AioRpcError as error:
            raise GenerationFailed(f"shard 0: no grammar compiled: {error.details()}") from error
        return response

    async def silent(self, ranks: Sequence[int], timeout: float) -> list[int]:
        """Those of some ranks that do not answer in so many seconds."""
        calls = [self._stubs[rank].Health(HealthRequest(), timeout=timeout) for rank in ranks]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        pairs = zip(ranks, answers, strict=True)
        return [rank for rank, answer in pairs if isinstance(answer, BaseException)]

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
        self._prober = asyncio.create_task(self._probe())

    def send(self, command: StepCommand) -> None:
        """Send a command to every rank."""
        data = command.SerializeToString()
        for outbox in self._outboxes:
            outbox.put_nowait(data)

    async def close(self, timeout: float = 5.0) -> None:
        """End the streams; each shard exits when its stream does."""
        self._closing = True
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.wait((self._prober,))
        for outbox in self._outboxes:
            outbox.put_nowait(None)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for channel in self._channels:
            await channel.close()

    async def _receive(self, rank: int, call: AsyncIterator[StepResult]) -> None:
        try:
            async for result in call:
                self._heard[rank] = True
                if result.HasField("error"):
                    return self._fail(rank, _describe(result))
                if rank == 0:
                    self.on_result(result)
            self._fail(rank, "its stream ended")
        except grpc.aio.AioRpcError as error:
            self._fail(rank, f"its stream broke: {error.code().name}: {error.details()}")
        except Exception as error:  # ours: unsaid, it would look like a shard that hangs
            logging.getLogger(__name__).exception("a result could not be taken in")
            self._end(f"the router could not take in a result: {error!r}")

    async def _probe(self) -> None:
        """Ask those that say nothing, from time to time. A stopped process keeps its socket."""
        misses = [0] * self.world_size
        said = ""
        while not self._closing:
            self._heard = [False] * self.world_size
            await asyncio.sleep(PROBE_SECONDS)
            quiet = [rank for rank, heard in enumerate(self._heard) if not heard]
            begun = time.monotonic()
            silent = await self.silent(quiet, PROBE_TIMEOUT)
            if time.monotonic() - begun > PROBE_TIMEOUT + PROBE_SECONDS:
                continue  # this process stood still itself
            misses = [n + 1 if rank in silent else 0 for rank, n in enumerate(misses)]
            missing = [f"shard {rank}" for rank, n in enumerate(misses) if n >= MISSES]
            reason = f"no answer from {', '.join(missing)}" if missing else ""
            if reason != said and not self._closing:
                said = reason
                self.on_trouble(reason)

    def _fail(self, rank: int, reason: str) -> None:
        self._end(f"shard {rank}: {reason}")

    def _end(self, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self.on_failure(ShardFailure(reason))

    async def _gather(self, calls: Iterable[Awaitable[T]], name: str) -> list[T]:
        """What all ranks answer. Where one fails, the others may wait for it for ever."""
        tasks = [asyncio.ensure_future(call) for call in calls]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for rank, task in enumerate(tasks):
                if task.done() and isinstance(error := task.exception(), grpc.aio.AioRpcError):
                    late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                    reason = "no answer in time" if late else error.details()
                    kind = ShardSilent if late else ShardFailure
                    raise kind(f"shard {rank}: {name} failed: {reason}") from error
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


def _credentials(keys: Mapping[str, str]) -> grpc.ChannelCredentials:
    """Both sides show a certificate of the group's authority."""
    authorities, key, certificate = (
        Path(keys[name]).read_bytes() for name in ("authorities", "key", "certificate")
    )
    return grpc.ssl_channel_credentials(authorities, key, certificate)


async def _drain(outbox: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (data := await outbox.get()) is not None:
        yield data


def _describe(result: StepResult) -> str:
    kind = StepError.Kind.Name(result.error.kind)
    return f"step {result.step} failed: {kind}: {result.error.message}"
