"""Sockets that the launcher has bound, to listen with when there is somebody to answer."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct

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


SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# A program for the kernel's packet filter (linux/filter.h; code, jump if, jump if not, operand):
# of what comes for a listener, keep all but the first packet of a connection.
_NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # the byte of the TCP header's flags
    (0x45, 0, 1, 0x02),  # SYN
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),
)


def admit_no_more(listener: socket.socket) -> None:
    """From now on nobody new is connected; who is, or is about to be, can still be accepted.

    A kernel that completes connections up to the moment when the listener is closed resets those
    that were not accepted yet, behind a client that may have sent its request. Of one whose first
    packet is dropped the next comes a second later and is refused: nothing was sent. Where there is
    no such filter, as for Unix sockets, all is as without.
    """
    if listener.family == socket.AF_UNIX:
        return
    program = b"".join(struct.pack("HBBI", *line) for line in _NO_NEW_CONNECTIONS)
    lines = ctypes.create_string_buffer(program)
    described = struct.pack("HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(lines))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Where a server listens."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    hostname, port = listener.getsockname()[:2]
    return f"{scheme}://[{hostname}]:{port}" if ":" in hostname else f"{scheme}://{hostname}:{port}"
