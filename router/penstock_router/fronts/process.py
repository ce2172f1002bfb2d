"""A process that serves HTTP and text in front of the one that schedules."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import cast

import uvloop

from penstock_proto.front_pb2 import FromFront
from penstock_router.allocator import keep_no_large_blocks
from penstock_router.api.app import make_app, make_runner
from penstock_router.api.keys import KEYS
from penstock_router.api.service import Permits
from penstock_router.collector import freeze_gc
from penstock_router.fronts.acceptor import take_connections
from penstock_router.fronts.config import FrontConfig, read_limits
from penstock_router.fronts.frames import BEAT_SECONDS, BadFrame, Frames, frame
from penstock_router.fronts.remote_engine import Outbox, RemoteEngine, RemoteMetrics
from penstock_router.fronts.remote_ledger import RemoteLedger
from penstock_router.fronts.text import load_text
from penstock_router.interpreter import share_interpreter
from penstock_router.limits import ServerLimits
from penstock_router.logs import configure_logs, log
from penstock_router.pulse import Pulse
from penstock_router.text import TextModel
from penstock_router.tls import Tls


def main() -> int:
    """Serve until the scheduling process says that it is over (0) or is gone (1)."""
    configure_logs()
    keep_no_large_blocks()
    share_interpreter()
    # It is the scheduling process that ends in order, and this one when told.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    try:
        config = FrontConfig.read(sys.stdin)
        text = _load(config)
        return 1 if text is None else uvloop.run(serve(config, text, read_limits(sys.stdin)))
    except EOFError:
        return 1  # the scheduling process is gone, and has said why


def _load(config: FrontConfig) -> TextModel | None:
    """None where it cannot, and the scheduling process was told why."""
    router = config.router
    try:
        return load_text(router)
    except (ValueError, OSError) as error:
        with socket.socket(fileno=config.frames) as wire:
            reason = str(error).encode(errors="replace").decode()
            wire.sendall(frame(FromFront(fault=reason)))
        return None


async def serve(config: FrontConfig, text: TextModel, limits: ServerLimits) -> int:
    """Serve the connections that come, with the engine at the other end of a socket."""
    if config.place == 0:  # all have the same
        text.warn_about_rows(limits.vocab_size)
    loop = asyncio.get_running_loop()
    closed: asyncio.Future[None] = loop.create_future()

    def lost() -> None:
        if not engine.leave.is_set():
            os._exit(1)  # nobody is left to answer with
        closed.set_result(None)

    outbox = Outbox(lambda frame: frames.send(frame))
    engine = RemoteEngine(limits, outbox)

    def receive(data: bytes) -> None:
        try:
            engine.receive(data)
        except BadFrame as error:
            log("ERROR", f"the scheduling process sent what makes no sense: {error}")
            frames.abort()

    frames = Frames(receive, lost)
    await loop.create_unix_connection(lambda: frames, sock=socket.socket(fileno=config.frames))
    permits = Permits(
        config.router.max_concurrent_requests, shared_counts(config.permits), config.place
    )
    metrics = RemoteMetrics(engine, outbox)
    ledger = RemoteLedger(engine, outbox)
    app = make_app(config.router, engine, text, metrics, permits, ledger)
    engine.on_keys = app[KEYS].replace
    runner = make_runner(app)
    await runner.setup()
    server = cast(Callable[[], asyncio.Protocol], runner.server)
    tls = Tls(files) if (files := config.router.tls) is not None else None
    take_connections(socket.socket(fileno=config.handover), server, tls)
    freeze_gc()
    outbox.frame.ready = True
    Pulse(BEAT_SECONDS, lambda late: frames.send(FromFront(lag=[late])))
    await engine.leave.wait()
    await runner.cleanup()
    text.close()
    await asyncio.sleep(0)  # the last frame goes out at the end of a turn
    frames.close()
    await closed
    return 0


def shared_counts(descriptor: int) -> memoryview:
    """A count for each process, which all of them see."""
    return memoryview(mmap.mmap(descriptor, 0)).cast("q")
