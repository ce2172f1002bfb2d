"""One client process of the load generator: a plan in on stdin, measurements out on stdout.

stdin   one line of JSON (`Plan`), later one line: the time.monotonic() at which to start; a further
        line ends it early, with what was measured, and the end of the file at once, without
stdout  "ready", then now and then `{"ended": requests}`, and at the end one line of JSON (`report`)
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvloop

from penstock.bench.measure import measure
from penstock.bench.prompts import Prompt
from penstock.bench.protocols import PROTOCOLS, Asking, request_body
from penstock.bench.stream_client import Connection, Exchange, connect, http_request

TELL_SECONDS = 0.5  # between two words about how far it is
KEPT_BYTES = 256 << 20  # of answers that are measured when all is over; then each at its end
FINISH_SECONDS = 5.0  # that a request gets to be cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one worker does: its share of the requests."""

    url: str  # http or https, with a path before the protocol's if need be
    protocol: str  # a name of PROTOCOLS
    path: str
    headers: dict[str, str]
    asking: Asking
    prompts: list[Prompt]
    due: list[float] | None  # seconds after the start, one a prompt; None: closed loop
    streams: int  # most requests in flight; 0: any
    max_seconds: float

    def to_json(self) -> bytes:
        """One line."""
        return orjson.dumps(self) + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> Plan:
        """The inverse of `to_json`."""
        values = orjson.loads(line)
        prompts = [Prompt(**each) for each in values["prompts"]]
        return cls(**values | {"prompts": prompts, "asking": Asking(**values["asking"])})


class Worker:
    """Runs its share of the requests and keeps what was measured."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.address = urlsplit(plan.url)
        self.tls = ssl.create_default_context() if self.address.scheme == "https" else None
        self.requests = [self._request(prompt) for prompt in plan.prompts]
        self.protocol = PROTOCOLS[plan.protocol]
        self.kept: list[Exchange] = []  # to be measured
        self.kept_bytes = 0
        self.measured: list[dict[str, Any]] = []
        self.ended = 0
        self.tasks: list[asyncio.Future[None]] = []
        self.idle: list[Connection] = []

    def _request(self, prompt: Prompt) -> bytes:
        plan = self.plan
        body = orjson.dumps(request_body(plan.protocol, prompt, plan.asking))
        path = self.address.path.rstrip("/") + plan.path
        return http_request(self.address.netloc.rpartition("@")[2], path, body, plan.headers)

    async def run(self, start: float) -> None:
        """Returns when all requests have ended, `max_seconds` are over, or `stop` was called."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=_listen, args=(loop, self.stop), daemon=True).start()
        await asyncio.sleep(start - time.monotonic())
        telling = asyncio.ensure_future(self._tell())
        loops = self._closed_loop() if self.plan.due is None else self._open_loop(start)
        self.tasks = [asyncio.ensure_future(each) for each in loops]
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=self.plan.max_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=FINISH_SECONDS)
        telling.cancel()

    def stop(self) -> None:
        """Cut what is under way."""
        for task in self.tasks:
            task.cancel()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            print(f'{{"ended": {self.ended}}}', flush=True)

    def _closed_loop(self) -> list[Coroutine[Any, Any, None]]:
        queue = deque(self.requests)

        async def stream() -> None:
            while queue:
                await self._send(queue.popleft(), time.monotonic())

        return [stream() for _ in range(self.plan.streams or len(queue))]

    def _open_loop(self, start: float) -> list[Coroutine[Any, Any, None]]:
        """A request's clock starts when it was due, not when it got its turn."""
        assert self.plan.due is not None
        turn = asyncio.Semaphore(self.plan.streams or max(len(self.requests), 1))

        async def arrival(request: bytes, due: float) -> None:
            await asyncio.sleep(due - time.monotonic())
            async with turn:
                await self._send(request, due)

        pairs = zip(self.requests, self.plan.due, strict=True)
        return [arrival(request, start + due) for request, due in pairs]

    async def _send(self, request: bytes, started: float) -> None:
        exchange = Exchange(started)
        connection = None
        try:
            while self.idle and (connection is None or connection.closed):
                connection = self.idle.pop()
            if connection is None or connection.closed:
                address = self.address
                port = address.port or (443 if self.tls else 80)
                connection = await connect(address.hostname or "127.0.0.1", port, self.tls)
            await connection.exchange(request, exchange)
        except OSError as error:
            exchange.failure = str(error) or repr(error)
        except asyncio.CancelledError:
            exchange.failure = "cut"
            raise
        finally:
            if connection is not None and not connection.closed:
                if exchange.failure is None:
                    self.idle.append(connection)
                else:
                    connection.close()
            self._keep(exchange)

    def _keep(self, exchange: Exchange) -> None:
        """Answers are taken apart when all is over, as long as there is room for them."""
        self.ended += 1
        self.kept_bytes += sum(len(data) for _, data in exchange.reads)
        if self.kept_bytes > KEPT_BYTES:
            self.measured.append(measure(exchange, self.protocol))
        else:
            self.kept.append(exchange)

    def report(self, cpu_seconds: float, wall_seconds: float) -> dict[str, Any]:
        """All measurements of this process, and how busy it was."""
        return {
            "requests": self.measured + [measure(each, self.protocol) for each in self.kept],
            "cpu_seconds": cpu_seconds,
            "wall_seconds": wall_seconds,
        }


def _listen(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """For a word to stop, and for the end of the process that wants the measurements."""
    while sys.stdin.buffer.readline():
        with contextlib.suppress(RuntimeError):  # all is over already
            loop.call_soon_threadsafe(stop)
    os._exit(1)


def _line() -> bytes:
    """What is said next; the end where who says it is gone."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        os._exit(1)
    return line


def main() -> None:
    """The process: read the plan, wait for the start, run, report."""
    worker = Worker(Plan.from_json(_line()))
    gc.disable()  # for its pauses; what the plan says bounds what there is
    try:
        print("ready", flush=True)
    except BrokenPipeError:
        os._exit(1)
    start = float(_line())
    cpu, wall = time.process_time(), time.monotonic()
    uvloop.run(worker.run(start))
    cpu, wall = time.process_time() - cpu, time.monotonic() - max(wall, start)
    # A file of its own: with PYTHONUNBUFFERED set, sys.stdout.buffer is raw and writes to a pipe no
    # more than 64 KiB of it.
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(orjson.dumps(worker.report(cpu, wall)) + b"\n")
    os._exit(0)  # thousands of exchanges need no tidying


if __name__ == "__main__":
    main()
