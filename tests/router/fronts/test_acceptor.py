"""Connections are handed out in turn, and none is lost but where nobody can take it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from penstock_router.fronts.acceptor import Acceptor, take_connections
from penstock_router.listening import inherited


class Names(asyncio.Protocol):
    """Says whose it is, and then what it hears."""

    def __init__(self, name: str, nodelay: list[int]) -> None:
        self._name = name
        self._nodelay = nodelay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        self._nodelay.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._name.encode())

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@dataclass
class Front:
    """As the acceptor knows it."""

    handover: socket.socket
    responsive: bool = True


class Fronts:
    """So many processes that take connections; those that take none are stuck."""

    def __init__(self, count: int, stuck: frozenset[int] = frozenset()) -> None:
        self.nodelay: list[int] = []
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
        self.targets = [Front(ours) for ours, _ in pairs]
        self.sources = [its for _, its in pairs]
        for place, (ours, its) in enumerate(pairs):
            ours.setblocking(False)
            if place not in stuck:
                take_connections(its, lambda name=str(place): Names(name, self.nodelay))

    def close(self) -> None:
        for sock in (*(target.handover for target in self.targets), *self.sources):
            with contextlib.suppress(ValueError):
                asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    @staticmethod
    def fill(target: Front) -> None:
        """As when its front has not run for a while."""
        with contextlib.suppress(BlockingIOError):
            while True:
                target.handover.send(b"\0")


def bound(host: str = "127.0.0.1") -> socket.socket:
    """As the launcher leaves it."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, 0))
    return inherited(listener.detach())


@contextlib.asynccontextmanager
async def accepting(fronts: Fronts, host: str = "127.0.0.1") -> AsyncIterator[tuple[str, int]]:
    acceptor = Acceptor(bound(host), fronts.targets)
    try:
        yield host, int(acceptor.url.rsplit(":", 1)[1])
    finally:
        await acceptor.close()
        fronts.close()


async def ask(address: tuple[str, int], word: bytes = b"hello") -> str:
    """Who serves a connection; empty when it was closed."""
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.suppress(ConnectionError):
        writer.write(word)
    answer = b""
    with contextlib.suppress(ConnectionError):
        while not answer.endswith(word) and (data := await asyncio.wait_for(reader.read(100), 60)):
            answer += data
    writer.close()
    return answer.removesuffix(word).decode()


async def test_connections_take_turns() -> None:
    fronts = Fronts(3)
    async with accepting(fronts) as address:
        assert [await ask(address) for _ in range(9)] == [str(i % 3) for i in range(9)]
        together = await asyncio.gather(*(ask(address) for _ in range(60)))
        assert Counter(together) == {"0": 20, "1": 20, "2": 20}
        assert all(fronts.nodelay) and len(fronts.nodelay) == 69


async def test_who_is_stuck_is_passed_over() -> None:
    fronts = Fronts(3, stuck=frozenset({1}))
    fronts.fill(fronts.targets[1])
    async with accepting(fronts) as address:
        names = [await ask(address) for _ in range(8)]
        assert set(names) == {"0", "2"}


async def test_who_is_dead_is_passed_over() -> None:
    fronts = Fronts(2, stuck=frozenset({0}))
    fronts.sources[0].close()
    async with accepting(fronts) as address:
        assert [await ask(address) for _ in range(4)] == ["1"] * 4


async def test_where_all_are_stuck_clients_wait_and_none_is_lost() -> None:
    fronts = Fronts(2, stuck=frozenset({0, 1}))
    for target in fronts.targets:
        fronts.fill(target)
    async with accepting(fronts) as address:
        waiting = [asyncio.create_task(ask(address)) for _ in range(50)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        take_connections(fronts.sources[0], lambda: Names("0", fronts.nodelay))
        assert await asyncio.wait_for(asyncio.gather(*waiting), 60) == ["0"] * 50


@pytest.mark.parametrize("code", [errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM])
async def test_where_the_kernel_refuses_for_now_clients_wait(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It lets a user have only so many descriptors on their way."""
    fronts, refusals, send = Fronts(2), iter(range(7)), socket.send_fds

    def send_fds(*arguments: Any) -> int:
        if next(refusals, None) is not None:
            raise OSError(code, "not now")
        return send(*arguments)

    monkeypatch.setattr(socket, "send_fds", send_fds)
    async with accepting(fronts) as address:
        assert await ask(address) in ("0", "1")


async def test_an_acceptor_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> int:
        raise RuntimeError("never seen before")

    monkeypatch.setattr(socket, "send_fds", broken)
    fronts, reasons = Fronts(1), asyncio.Queue[str]()
    acceptor = Acceptor(bound(), fronts.targets, reasons.put_nowait)
    assert await ask(("127.0.0.1", int(acceptor.url.rsplit(":", 1)[1]))) == ""
    assert "never seen before" in await asyncio.wait_for(reasons.get(), 60)
    await acceptor.close()
    fronts.close()


async def test_who_was_not_heard_of_lately_gets_none_while_others_are_there() -> None:
    fronts = Fronts(3)
    fronts.targets[1].responsive = False
    async with accepting(fronts) as address:
        assert Counter([await ask(address) for _ in range(8)]) == {"0": 4, "2": 4}
        fronts.targets[0].responsive = fronts.targets[2].responsive = False
        assert {await ask(address) for _ in range(6)} == {"0", "1", "2"}


async def test_where_all_are_gone_the_client_sees_it_at_once() -> None:
    fronts = Fronts(2, stuck=frozenset({0, 1}))
    for source in fronts.sources:
        source.close()
    async with accepting(fronts) as address:
        assert await asyncio.wait_for(ask(address), 60) == ""


async def test_no_descriptor_stays_open() -> None:
    fronts = Fronts(2)
    async with accepting(fronts) as address:
        await ask(address)
        before = descriptors()
        for _ in range(5):
            await asyncio.gather(*(ask(address) for _ in range(20)))
        async with asyncio.timeout(60):
            while descriptors() > before:
                await asyncio.sleep(0.01)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def no_free_descriptor() -> Iterator[None]:
    """As when a process serves as many connections as it may have files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_front_without_free_descriptors_goes_on_when_it_has_some() -> None:
    """The connections meanwhile are closed, and only those."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nodelay: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0))
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    connections = [listener.accept()[0] for _ in range(3)]
    take_connections(its, lambda: Names("0", nodelay))
    loop = asyncio.get_running_loop()
    for client in clients:
        client.setblocking(False)
    for place, connection in enumerate(connections):
        socket.send_fds(ours, [b"\0"], [connection.fileno()])
        connection.close()
        with no_free_descriptor() if place == 1 else contextlib.nullcontext():
            await asyncio.sleep(0.05)
    answers = [await asyncio.wait_for(loop.sock_recv(client, 10), 60) for client in clients]
    loop.remove_reader(its)
    for sock in (ours, its, listener, *clients):
        sock.close()
    assert answers == [b"0", b"", b"0"]


async def test_the_acceptor_without_free_descriptors_goes_on_when_it_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penstock_router.fronts.acceptor.PAUSE_SECONDS", 0.05)
    fronts = Fronts(1)
    async with accepting(fronts) as address:
        assert await ask(address) == "0"
        client = socket.socket()
        client.setblocking(False)
        await asyncio.sleep(0.05)  # all descriptors of the first one are closed
        with no_free_descriptor():
            await asyncio.get_running_loop().sock_connect(client, address)
            await asyncio.sleep(0.1)
            assert len(fronts.nodelay) == 1
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 10), 60)
        assert answer == b"0"  # it was only late
        client.close()


async def test_nobody_listens_any_more_after_close() -> None:
    fronts = Fronts(1)
    async with accepting(fronts) as address:
        assert await ask(address) == "0"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_ipv6() -> None:
    fronts = Fronts(1)
    async with accepting(fronts, "::1") as address:
        assert await ask(address) == "0"


async def test_who_is_connected_when_it_closes_is_served_and_who_comes_then_is_refused() -> None:
    """Nobody is in between: connected, and never accepted."""
    fronts = Fronts(2)
    acceptor = Acceptor(bound(), fronts.targets)
    address = ("127.0.0.1", int(acceptor.url.rsplit(":", 1)[1]))
    early = [socket.create_connection(address, timeout=60) for _ in range(20)]
    closing = asyncio.create_task(acceptor.close())
    await asyncio.sleep(0)  # it has begun
    late = asyncio.create_task(ask(address))
    await closing
    with pytest.raises(ConnectionRefusedError):
        await asyncio.wait_for(late, 60)
    loop = asyncio.get_running_loop()
    for connection in early:
        connection.setblocking(False)
        with connection:
            assert await asyncio.wait_for(loop.sock_recv(connection, 1), 60) in (b"0", b"1")
    fronts.close()


async def test_it_closes_though_nobody_takes_what_came() -> None:
    fronts = Fronts(1, stuck=frozenset({0}))
    fronts.fill(fronts.targets[0])
    acceptor = Acceptor(bound(), fronts.targets)
    address = ("127.0.0.1", int(acceptor.url.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=60):
        await asyncio.wait_for(acceptor.close(), 60)
    fronts.close()
