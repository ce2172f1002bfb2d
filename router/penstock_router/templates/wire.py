"""Messages between the router and a process that renders: JSON behind its length."""

from __future__ import annotations

import signal
import socket
import struct
import time
from typing import Any

import orjson

PREFIX = 4  # bytes of a message's length
MOST_BYTES = 128 * 1024 * 1024  # of a message
BORN = struct.Struct("<ii")  # id of a new process, and how the one that it replaces ended
OUT_OF_TIME = -signal.SIGVTALRM  # how a process ends that its time limit ends


def pack(message: object) -> bytes:
    """A message behind its length. Raises TypeError for what JSON cannot hold, as halves of UTF-16
    pairs and integers beyond 64 bits."""
    data = orjson.dumps(message)
    return len(data).to_bytes(PREFIX, "little") + data


def receive(wire: socket.socket, seconds: float | None = None) -> Any:
    """The next message. Raises what `read` raises."""
    return orjson.loads(read(wire, seconds))


def read(wire: socket.socket, seconds: float | None = None) -> bytearray:
    """The JSON of the next message.

    seconds: how long to wait for all of it. Raises TimeoutError, EOFError when the other side is
    gone, and ValueError when it breaks the protocol.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    size = int.from_bytes(_read(wire, PREFIX, deadline), "little")
    if size > MOST_BYTES:
        raise ValueError(f"a message of {size} bytes")
    return _read(wire, size, deadline)


def _read(wire: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        if deadline is not None:
            wire.settimeout(max(deadline - time.monotonic(), 0.001))
        count = wire.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data
