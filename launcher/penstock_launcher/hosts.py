"""The other hosts of a group: they begin together, and end together.

Host 0 (`--node-rank 0`) has the router, and listens one port above `--master-port`; the others
connect, say what they are about to serve, and are let in or told why not. From then on each hears
of the others' failures and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import ssl
from collections.abc import Callable
from typing import Any

from penstock_launcher.errors import LauncherError
from penstock_launcher.host_keys import HostKeys, host_name
from penstock_launcher.host_link import LONGEST_LINE, Link, Message
from penstock_launcher.host_place import Place
from penstock_launcher.logs import Log

JOIN_SECONDS = 1800.0  # in which all hosts must have met: some fetch the model first
RETRY_SECONDS = 1.0
REMIND_SECONDS = 10.0
CAUSE_SECONDS = 5.0  # in which a failure elsewhere, of which ours may be a consequence, is heard of
# What gloo, NCCL and gRPC say when a rank on another host is gone.
LOST_PEERS = ("closed by peer", "reset by peer", "Broken pipe", "NCCL", "gloo", "stream broke")


class Hosts:
    """What `Leader` and `Follower` have in common; the supervisor talks to it."""

    def __init__(self, place: Place, keys: HostKeys, log: Log) -> None:
        self.place = place
        self.keys = keys
        self.on_drain: Callable[[str], None] = lambda who: None  # another host was told to end
        self._log = log
        self._links: dict[int, Link] = {}
        self._names: dict[int, str] = {}
        self._ending = False
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def watch(self) -> None:
        """Raises LauncherError that names a host, when one has failed or is lost."""
        await asyncio.shield(self._lost)

    async def cause(self, last_word: str) -> str | None:
        """Why another host failed, if it did: a failure here may be a consequence of that.

        last_word: of who failed here. One that lost its peers waits to hear why; others do not, so
        that the first to fail is the first to say so.
        """
        if any(words in last_word for words in LOST_PEERS):
            await asyncio.wait([self._lost], timeout=CAUSE_SECONDS)
        error = self._lost.exception() if self._lost.done() else None
        return None if error is None else str(error)

    def drain(self) -> None:
        """The group ends in order."""
        self._ending = True
        self._tell({"drain": True})

    async def failed(self, sentence: str) -> None:
        """The group ends, and this is why."""
        self._ending = True
        self._tell({"failed": sentence})
        await self.close()

    async def close(self) -> None:
        """Hear and say nothing more."""
        self._ending = True
        links, self._links = self._links, {}
        await asyncio.gather(*(link.close() for link in links.values()))
        if self._lost.done():
            self._lost.exception()  # seen, even if nobody waited for it

    def _tell(self, message: Message) -> None:
        for link in self._links.values():
            link.send(message)

    def _add(
        self, rank: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str
    ) -> Link:
        self._names[rank] = f"host {rank} ({address})"
        link = Link(
            reader, writer, lambda message: self._hear(rank, message), lambda r: self._lose(rank, r)
        )
        self._links[rank] = link
        return link

    def _hear(self, rank: int, message: Message) -> None:
        if "failed" in message:
            self._end(f"{self._names[rank]}: {message['failed']}")
        elif "drain" in message:
            self.on_drain(self._names[rank])

    def _lose(self, rank: int, reason: str) -> None:
        if not self._ending:
            self._end(f"{self._names[rank]} is lost: {reason}")

    def _end(self, sentence: str) -> None:
        if not self._lost.done():
            self._lost.set_exception(LauncherError(sentence))


class Leader(Hosts):
    """Host 0."""

    def __init__(self, place: Place, keys: HostKeys, log: Log) -> None:
        super().__init__(place, keys, log)
        self._server: asyncio.Server | None = None
        self._waiting: dict[int, tuple[Link, dict[str, Any], str]] = {}
        self._came = asyncio.Event()

    async def listen(self) -> None:
        """Let the others come. Raises LauncherError where it cannot."""
        place = self.place
        try:
            self._server = await asyncio.start_server(
                self._take,
                _own(place.address),
                place.control_port,
                ssl=self.keys.server(),
                ssl_handshake_timeout=15,
                limit=LONGEST_LINE,
            )
        except OSError as error:
            raise LauncherError(
                f"cannot listen at {place.address} port {place.control_port} (--master-addr, and "
                f"the port behind --master-port): {error.strerror or error}"
            ) from None

    async def gather(self, mine: dict[str, Any]) -> dict[int, str]:
        """Wait for all hosts, and let them begin. The address of each.

        mine: what this host serves; theirs must be the same. Raises LauncherError.
        """
        wanted = set(range(1, self.place.nnodes))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + JOIN_SECONDS
        while missing := wanted - self._waiting.keys():
            names = ", ".join(f"host {rank}" for rank in sorted(missing))
            if loop.time() > deadline:
                raise LauncherError(f"{names} did not come within {JOIN_SECONDS:.0f} s")
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), REMIND_SECONDS)
                continue
            self._log.info(f"waiting for {names}")
        for rank, (link, theirs, _) in self._waiting.items():
            if problem := difference(mine, theirs):
                link.send({"failed": f"it serves another thing than host 0: {problem}"})
                raise LauncherError(f"{self._names[rank]} serves another thing: {problem}")
        self._tell({"begin": True})
        return {rank: address for rank, (_, _, address) in self._waiting.items()}

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await super().close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(15):
                hello = json_line(await reader.readline())
            rank, address = int(hello["node_rank"]), str(writer.get_extra_info("peername")[0])
            problem = self._problem(rank, writer)
        except (OSError, ValueError, KeyError, TypeError, TimeoutError):
            writer.close()
            return
        if problem:
            self._log.warning(f"a host was turned away: {problem}", address=address)
            writer.write(b'{"failed": %b}\n' % json_text(problem))
            writer.close()
            return
        link = self._add(rank, reader, writer, address)
        self._waiting[rank] = link, hello["serves"], address
        self._log.info(f"{self._names[rank]} has come")
        self._came.set()

    def _problem(self, rank: int, writer: asyncio.StreamWriter) -> str:
        names = certified_names(writer.get_extra_info("ssl_object"))
        if host_name(rank) not in names:
            return f"its certificate is for {', '.join(names)}, not for {host_name(rank)}"
        if not 0 < rank < self.place.nnodes:
            return f"--node-rank {rank} is none of {self.place.nnodes} hosts"
        if rank in self._waiting:
            return f"there is a host {rank} already"
        return ""


class Follower(Hosts):
    """Any other host."""

    async def join(self, mine: dict[str, Any]) -> str:
        """Come to host 0, and wait until it lets all begin. This host's address, as the way to
        host 0 has it. Raises LauncherError."""
        reader, writer = await self._connect()
        address = str(writer.get_extra_info("sockname")[0])
        hello = {"node_rank": self.place.node_rank, "serves": mine}
        writer.write(json_text(hello) + b"\n")
        self._begin: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add(0, reader, writer, self.place.address)
        while not self._begin.done():
            await asyncio.wait(
                [self._begin, self._lost],
                timeout=REMIND_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._lost.done():
                self._lost.result()
            if not self._begin.done():
                self._log.info("waiting for the other hosts")
        return address

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        place, loop = self.place, asyncio.get_running_loop()
        deadline, remind = loop.time() + JOIN_SECONDS, loop.time() + REMIND_SECONDS
        where = f"host 0 at {place.address} port {place.control_port}"
        while True:
            try:
                return await asyncio.open_connection(
                    place.address,
                    place.control_port,
                    ssl=self.keys.client(),
                    server_hostname=host_name(0),
                    limit=LONGEST_LINE,
                )
            except ssl.SSLCertVerificationError as error:
                raise LauncherError(f"{where} is none of this group: {error.reason}") from None
            except OSError as error:
                if loop.time() > deadline:
                    raise LauncherError(f"{where} does not answer: {error}") from None
            if loop.time() > remind:
                remind = loop.time() + REMIND_SECONDS
                self._log.info(f"waiting for {where}")
            await asyncio.sleep(RETRY_SECONDS)

    def _hear(self, rank: int, message: Message) -> None:
        if "begin" in message and not self._begin.done():
            self._begin.set_result(None)
        super()._hear(rank, message)


def _own(address: str) -> str:
    """Where to listen. The name of this host may not be known yet, when a cluster starts it."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return "0.0.0.0"


def difference(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """The first thing in which two hosts differ; empty: none."""
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            return f"{name} is {theirs.get(name)} there and {mine.get(name)} here"
    return ""


def certified_names(ssl_object: ssl.SSLObject) -> list[str]:
    """Names that the other side's certificate is for."""
    certificate = ssl_object.getpeercert() or {}
    names: Any = certificate.get("subjectAltName", ())
    return [str(value) for kind, value in names if kind == "DNS"]


def json_line(line: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def json_text(value: object) -> bytes:
    """On one line."""
    return json.dumps(value).encode()
