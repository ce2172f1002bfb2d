"""Connections that one process accepts and others serve.

The kernel would spread connections over several listening processes too, but by chance: of 8
connections over 4 processes one would mostly get 4. Here they take turns.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock_router.listening import BACKLOG, admit_no_more, url_of
from penstock_router.logs import log
from penstock_router.tls import HANDSHAKE_SECONDS, Tls

GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_SECONDS = 0.5  # until something that was exhausted may be there again
RETRY_SECONDS = 0.002  # while nobody takes a connection; others wait in the backlog
LAST_SECONDS = 0.1  # without a connection, after which those that had begun are there
CLOSE_SECONDS = 1.0  # for all of them to be passed on


class HttpProcess(Protocol):
    """Who serves connections."""

    @property
    def handover(self) -> socket.socket:
        """Where it takes them, as descriptors; does not block."""

    @property
    def responsive(self) -> bool:
        """It was heard of lately."""


class Acceptor:
    """Listens, and passes each connection on to one process after the other.

    Raises OSError when it cannot listen.
    """

    def __init__(
        self,
        listener: socket.socket,
        processes: Sequence[HttpProcess],
        on_failure: Callable[[str], None] = lambda reason: None,
        scheme: str = "http",
    ) -> None:
        """listener: bound, does not block. on_failure: told why, when no connection is accepted
        any more."""
        listener.listen(BACKLOG)
        self._listener = listener
        self._processes = processes
        self._turn = 0
        self._closing = False
        self._stirred = asyncio.Event()  # somebody has come, or it closes
        self._on_failure = on_failure
        self._task = asyncio.create_task(self._accept())
        self._task.add_done_callback(self._ended)
        self.url = url_of(listener, scheme)

    async def close(self) -> None:
        """Accept no more. Who is connected by now is passed on; who comes is refused."""
        admit_no_more(self._listener)
        self._closing = True
        self._stirred.set()
        await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._listener.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(f"connections are not accepted any more: {error!r}")

    async def _accept(self) -> None:
        exhausted = False
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                if not await self._somebody_may_come():
                    return
                continue
            except OSError as error:
                if error.errno in EXHAUSTED:
                    if not exhausted:
                        log("WARNING", f"cannot accept connections: {error.strerror}")
                    exhausted = True
                    await asyncio.sleep(PAUSE_SECONDS)
                continue  # else that client has left already
            exhausted = False
            with connection:  # who serves it has a descriptor of its own
                while not self._passed_on(connection):
                    await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(0)  # others have their turn, however many come

    async def _somebody_may_come(self) -> bool:
        """Wait for a connection; False when none has come for a while and none is to come."""
        loop = asyncio.get_running_loop()
        self._stirred.clear()
        loop.add_reader(self._listener, self._stirred.set)
        try:
            async with asyncio.timeout(LAST_SECONDS if self._closing else None):
                await self._stirred.wait()
            return True
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._listener)

    def _passed_on(self, connection: socket.socket) -> bool:
        """False when it must be tried again; where all are gone, nobody will ever take it."""
        processes = [
            process for process in self._processes if process.responsive
        ] or self._processes
        first = self._turn % len(processes)
        self._turn += 1
        full = False
        for process in (*processes[first:], *processes[:first]):
            try:
                socket.send_fds(process.handover, [b"\0"], [connection.fileno()])
                return True
            except OSError as error:  # who is gone is noticed elsewhere
                full |= error.errno not in GONE
        return not full


def take_connections(
    source: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: Tls | None = None
) -> None:
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
        elif not descriptors:  # the kernel has closed the connection
            log("WARNING", "a connection was lost: too many open files")
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            connection.setblocking(False)
            task = loop.create_task(serve(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def serve(connection: socket.socket) -> None:
        try:
            if tls is None:
                await loop.connect_accepted_socket(protocol, connection)
            else:
                await loop.connect_accepted_socket(
                    protocol,
                    connection,
                    ssl=tls.context,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                )
        except OSError:  # the client is gone already, or speaks no TLS, or shows no certificate
            connection.close()

    source.setblocking(False)
    loop.add_reader(source, take)
