"""Connections that one process accepts and others serve.

The kernel would spread connections over several listening processes too, but by chance: of 8
connections over 4 processes one would mostly get 4. Here they take turns.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Sequence

BACKLOG = 2048
PAUSE_SECONDS = 0.5  # when no connection can be accepted: mostly, too many files are open


class Acceptor:
    """Listens, and passes each connection on as a descriptor, to one socket after the other.

    Raises OSError when the address cannot be listened at.
    """

    def __init__(self, hostname: str, port: int, targets: Sequence[socket.socket]) -> None:
        family = socket.AF_INET6 if ":" in hostname else socket.AF_INET
        self._listener = socket.create_server((hostname, port), family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        self._targets = targets
        self._turns = itertools.cycle(range(len(targets)))
        self._task = asyncio.create_task(self._accept())
        self.url = url_of(hostname, self._listener.getsockname()[1])

    async def close(self) -> None:
        """Accept no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            with connection:  # its other end has a descriptor of its own
                self._pass_on(connection)

    def _pass_on(self, connection: socket.socket) -> None:
        """To the next one that takes it; where all are stuck, the client sees it closed."""
        for _ in self._targets:
            target = self._targets[next(self._turns)]
            try:
                socket.send_fds(target, [b"\0"], [connection.fileno()])
                return
            except OSError:
                continue


def take_connections(source: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
    """Serve the connections that an Acceptor passes on, from now on."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[object]] = set()

    def take() -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(source, 1, 1)
        except BlockingIOError:
            return
        if not data:  # the other side is gone
            loop.remove_reader(source)
        # Where too many files are open here, the kernel has closed the connection: none comes.
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            task = loop.create_task(serve(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def serve(connection: socket.socket) -> None:
        try:
            await loop.connect_accepted_socket(protocol, connection)
        except OSError:  # the client is gone already
            connection.close()

    source.setblocking(False)
    loop.add_reader(source, take)


def url_of(hostname: str, port: int) -> str:
    """Where a server listens."""
    return f"http://[{hostname}]:{port}" if ":" in hostname else f"http://{hostname}:{port}"
