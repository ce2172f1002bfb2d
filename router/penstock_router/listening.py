"""Sockets that the launcher has bound, to listen with when there is somebody to answer."""

from __future__ import annotations

import socket

BACKLOG = 2048
SEND_BYTES = 128 * 1024  # the kernel keeps for a client that does not read; it doubles this


def inherited(descriptor: int) -> socket.socket:
    """The socket of a descriptor. Its connections, once they are over, keep nobody from binding,
    and what they have not read waits in this process, where it is seen and bounded."""
    listener = socket.socket(fileno=descriptor)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where a server listens."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    hostname, port = listener.getsockname()[:2]
    return f"{scheme}://[{hostname}]:{port}" if ":" in hostname else f"{scheme}://{hostname}:{port}"
