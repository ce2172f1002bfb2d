"""All connections of a process: how many there may be, of one client and in all."""

from __future__ import annotations

import asyncio
import os
import resource
from dataclasses import dataclass

from aiohttp import hdrs, web

from penstock_router.api.awakening import Awakening
from penstock_router.api.body_pace import Pace
from penstock_router.api.clients import Clients
from penstock_router.api.connection import Connection
from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.interface import Metrics
from penstock_router.api.paced_parsing import ParsingPace
from penstock_router.api.refusal import refuse
from penstock_router.api.request_id import request_id
from penstock_router.api.root_path import behind
from penstock_router.logs import RareLog
from penstock_router.pulse import Pulse

RESERVED = 12  # descriptors for what is not a client: files, pipes, what a library opens
FEWEST = 4  # connections, whatever there is room for
CLIENT_SHARE = 0.75  # of the room that one client may take
MOST_LINGERING = 64  # refused connections whose clients may read why, beside the others
LOOK_SECONDS = 5.0  # between two looks at what clients have not read
REFUSED_BYTES = 32 * 1024 * 1024  # in a second, of bodies that were answered before their end
EXPECTED = "100-continue"
YOUNG_SECONDS = 1.0  # in which a new connection has its first request, at most


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds."""

    head: float = 15.0  # for the head of a request, from its first byte
    idle: float = 75.0  # without a request, which aiohttp sees to; proxies give up after 60 s


def unexpected(request: web.BaseRequest) -> web.Response | None:
    """The answer to an Expect header that is none. aiohttp's own would repeat what it says, which
    may be no text at all; it knows no application yet, whose headers an answer has."""
    if request.headers.get(hdrs.EXPECT, EXPECTED).lower() == EXPECTED:
        return None
    assert isinstance(request, web.Request)
    answer = refuse(
        request, ApiError(Kind.BAD_REQUEST, f"The Expect header may only be `{EXPECTED}`")
    )
    answer.headers[hdrs.SERVER] = "penstock"
    answer.headers["x-request-id"] = request_id(request)
    return answer


Group = dict[Connection, None]  # in the order in which they came


class Connections(web.Server):
    """Makes and counts them. One that would be too many takes the place of the oldest idle one."""

    def __init__(
        self,
        server: web.Server,
        clients: Clients,
        metrics: Metrics,
        most_of_client: int,
        waits: Waits,
        root_path: str = "",
    ) -> None:
        """server: what aiohttp would use instead. most_of_client: connections of one client."""
        handler = server.request_handler

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                if (answer := unexpected(request)) is not None:
                    return answer
                return await handler(request)
            except (ApiError, web.HTTPException) as error:  # aiohttp's own, before any route
                return refuse(request, error)

        super().__init__(
            handle,
            request_factory=behind(root_path, server.request_factory),
            handler_cancellation=server.handler_cancellation,
            **server._kwargs,
        )
        self.waits = waits
        self._clients = clients
        self._metrics = metrics
        descriptors = room()
        self._lingering = min(MOST_LINGERING, max(1, descriptors // 8))
        self._room = descriptors - self._lingering
        self._most = min(most_of_client, max(FEWEST, int(self._room * CLIENT_SHARE)))
        self._all: Group = {}
        self._of_client: dict[str, Group] = {}
        self._refused: Group = {}  # that may read why
        self._unsent = 0
        self.refused_pace = Pace(REFUSED_BYTES)
        self.parsing_pace = ParsingPace()
        self.starting = Awakening()
        self._rare = RareLog("penstock_router.api")
        self._look = Pulse(LOOK_SECONDS, self._see_who_reads)
        if self._most < most_of_client:
            self._rare(
                "WARNING",
                f"there are few descriptors: {self._room} connections are taken, and of one "
                f"client {self._most} instead of {most_of_client} (`ulimit -n`)",
            )

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)

    def admit(self, connection: Connection) -> ApiError | None:
        """Take a connection in. The error where it cannot be, for it to tell its client."""
        client = connection.client = self._clients.of_peer(connection.peername)
        mine = {} if client is None else self._of_client.get(client, {})
        refusal = ""
        if len(mine) >= self._most and not self._replace(mine):
            refusal = (
                f"Too many connections of one client: at most {self._most} "
                "(`--max-connections-per-client`)"
            )
        elif len(self._all) >= self._room and not self._replace(self._all):
            refusal = f"Too many connections: there are descriptors for {self._room}"
        if refusal:
            if len(self._refused) >= self._lingering:
                oldest = next(iter(self._refused))
                del self._refused[oldest]
                oldest.abort()
            self._refused[connection] = None
            return ApiError(Kind.TOO_MANY, refusal)
        self._all[connection] = None
        if client is not None:
            self._of_client.setdefault(client, {})[connection] = None
        return None

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        assert isinstance(handler, Connection)
        self._forget(handler)

    async def hear_out(self) -> None:
        """Wait for requests that are on their way: whoever sent one cannot know whether it began
        where its connection ends without an answer."""
        end = self._loop.time() + YOUNG_SECONDS
        while self._loop.time() < end and any(one.expects(YOUNG_SECONDS) for one in self._all):
            await asyncio.sleep(0.02)

    async def shutdown(self, timeout: float | None = None) -> None:
        self._look.stop()
        await super().shutdown(timeout)

    def note(self, level: str, message: str, peer: object) -> None:
        """A line in the log about what a client did; not more than one in a while."""
        self._rare(level, message, client=self._clients.of_peer(peer))

    def on_stuck(self, connection: Connection) -> None:
        """A client reads nothing of its answer, and its connection is about to be cut."""
        self._metrics.on_slow_reader()
        self.note("INFO", "a client does not read its answer", connection.peername)

    def _replace(self, group: Group) -> bool:
        """End the oldest idle connection of a group; False where none is."""
        for connection in group:
            if connection.idle:
                self.note(
                    "WARNING",
                    f"{len(group)} connections are too many: idle ones are closed",
                    connection.peername,
                )
                self._forget(connection)
                connection.end()
                return True
        return False

    def _forget(self, connection: Connection) -> None:
        self._all.pop(connection, None)
        self._refused.pop(connection, None)
        client = connection.client
        if client is not None and (mine := self._of_client.get(client)) is not None:
            mine.pop(connection, None)
            if not mine:
                del self._of_client[client]

    def _see_who_reads(self, late: float) -> None:
        now = self._loop.time()
        unsent = sum([connection.unsent(now) for connection in self._all])
        self._metrics.on_unsent(unsent - self._unsent)
        self._unsent = unsent


def room() -> int:
    """For how many connections this process has descriptors."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(FEWEST, most - len(os.listdir("/proc/self/fd")) - RESERVED)


def allow_descriptors(most: int = 65_536) -> None:
    """As many as the operator's hard limit permits, for this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, most) if hard != resource.RLIM_INFINITY else most
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
