"""The gRPC service of one shard on its Unix socket."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path

import grpc

from penstock_proto import shard_pb2, shard_pb2_grpc
from penstock_shard import phases
from penstock_shard.executor import Executor
from penstock_shard.memory.plan import DoesNotFit
from penstock_shard.weights.loaded_model import LoadedModel

# Sequences that one command may admit at their full length; the router admits what a step's
# prefill budget holds, so that more than a few long ones come only when nearly all is cached.
ADMISSIONS = 64
MESSAGE_FLOOR = 16 << 20
MESSAGE_CEILING = 2**31 - 1  # gRPC's own
WORKERS = 8  # Run has one for itself, compiles may have two for seconds, and Health must not wait
SOCKET_PATH_LIMIT = 107  # bytes, sun_path of unix(7) less its end


class Servicer(shard_pb2_grpc.ShardServicer):
    """Info, Warmup, Health, grammars and the one Run stream.

    done is called when the shard has to end.
    """

    def __init__(self, loaded: LoadedModel, done: Callable[[BaseException | None], None]) -> None:
        self._info = loaded.info()
        self._info.phases.update(phases.SPENT)
        self._grammars = loaded.grammars
        self._done = done
        self._results: queue.SimpleQueue[shard_pb2.StepResult | None] = queue.SimpleQueue()
        self._executor = Executor(loaded, self._results.put, done)
        self._lock = threading.Lock()
        self._running = False
        self._warmed = False

    def Info(
        self, request: shard_pb2.InfoRequest, context: grpc.ServicerContext
    ) -> shard_pb2.InfoResponse:
        return self._info

    def Health(
        self, request: shard_pb2.HealthRequest, context: grpc.ServicerContext
    ) -> shard_pb2.HealthResponse:
        return shard_pb2.HealthResponse()

    def Warmup(
        self, request: shard_pb2.WarmupRequest, context: grpc.ServicerContext
    ) -> shard_pb2.WarmupResponse:
        response = shard_pb2.WarmupResponse()
        with self._lock:
            if self._warmed:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "Warmup was called before")
            self._warmed = True
        try:
            response = self._executor.warm_up(request)
        except (DoesNotFit, ValueError) as error:
            self._done(error)
            fits = not isinstance(error, DoesNotFit)
            code = grpc.StatusCode.INVALID_ARGUMENT if fits else grpc.StatusCode.RESOURCE_EXHAUSTED
            context.abort(code, str(error))
        except Exception as error:
            self._done(error)
            context.abort(grpc.StatusCode.INTERNAL, f"warmup failed: {error}")
        return response

    def LoadTokenizer(
        self, requests: Iterator[shard_pb2.TokenizerPart], context: grpc.ServicerContext
    ) -> shard_pb2.TokenizerResponse:
        pieces: list[bytes] = []
        eos: list[int] = []
        for part in requests:
            pieces.append(part.json)
            eos += part.eos
        problem = self._grammars.load(b"".join(pieces).decode(), eos)
        return shard_pb2.TokenizerResponse(error=problem)

    def CompileGrammar(
        self, request: shard_pb2.CompileRequest, context: grpc.ServicerContext
    ) -> shard_pb2.CompileResponse:
        return self._grammars.compile(request)

    def Run(
        self, requests: Iterator[shard_pb2.StepCommand], context: grpc.ServicerContext
    ) -> Iterator[shard_pb2.StepResult]:
        with self._lock:
            if self._running or not self._executor.ready:
                reason = "Run is open already" if self._running else "Run needs Warmup first"
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, reason)
            self._running = True
        reader = threading.Thread(target=self._read, args=(requests,), name="reader", daemon=True)
        reader.start()
        # A client that is gone reads nothing more: do not wait for the queue to drain.
        context.add_callback(lambda: self._results.put(None))
        try:
            while (result := self._results.get()) is not None:
                yield result
        finally:
            self._done(None)

    def _read(self, requests: Iterator[shard_pb2.StepCommand]) -> None:
        """Commands into the executor's queue until the client ends the stream or is gone."""
        try:
            for command in requests:
                self._executor.submit(command)
        except grpc.RpcError:
            pass  # the stream broke: the same end
        self._executor.close()


def serve(
    servicer: Servicer,
    folder: Path,
    rank: int,
    message_limit: int,
    listen: Mapping[str, str] | None = None,
) -> grpc.Server:
    """Bind the shard's socket, readable by this user alone, and start to serve.

    listen: address and files instead, for a router on another host: see ShardConfig.

    Raises ValueError for a path that no Unix socket can have, OSError if it cannot be bound.
    """
    path = (folder / f"shard-{rank}.sock").absolute()
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise ValueError(
            f"the socket path {path} has {len(os.fsencode(path))} bytes, but Unix allows "
            f"{SOCKET_PATH_LIMIT}: choose a shorter --shard-uds-path"
        )
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="grpc"),
        options=[("grpc.max_receive_message_length", message_limit)],
    )
    add: Callable[..., None] = shard_pb2_grpc.add_ShardServicer_to_server
    add(servicer, server)
    if listen is not None:
        _listen_on_network(server, listen)
        server.start()
        return server
    umask = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise OSError(f"cannot bind the socket {path}: {error}") from None
    finally:
        os.umask(umask)
    path.chmod(0o600)
    server.start()
    return server


def _listen_on_network(server: grpc.Server, listen: Mapping[str, str]) -> None:
    """For those alone whose certificate the group's authority has signed. Raises OSError."""
    key, certificate, authorities = (
        Path(listen[name]).read_bytes() for name in ("key", "certificate", "authorities")
    )
    credentials = grpc.ssl_server_credentials([(key, certificate)], authorities, True)
    try:
        server.add_secure_port(listen["address"], credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen at {listen['address']}: {error}") from None


def message_limit(loaded: LoadedModel) -> int:
    """Bytes of the largest command: ADMISSIONS prompts of the longest length with their blocks.

    A token takes 4 bytes, a block id 4; a logit bias at most 9 for each entry of the vocabulary.
    """
    positions = loaded.model.max_positions
    admission = 4 * positions + 4 * (positions // loaded.block_size + 1)
    largest = ADMISSIONS * admission + 9 * loaded.model.vocab_size
    return min(max(largest, MESSAGE_FLOOR), MESSAGE_CEILING)
