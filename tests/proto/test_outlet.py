"""A log that nobody reads holds up nobody."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import pytest

from penstock_proto import outlet
from penstock_proto.outlet import PENDING, Outlet


def drain(descriptor: int) -> str:
    os.set_blocking(descriptor, False)
    read = bytearray()
    with contextlib.suppress(BlockingIOError):
        while data := os.read(descriptor, 65536):
            read += data
    return read.decode()


@pytest.fixture(params=["pipe", "socket"])
def ends(request):
    """What is read, and what is written to."""
    if request.param == "pipe":
        read, write = os.pipe()
        yield read, write
        os.close(read)
        os.close(write)
    else:
        ours, its = socket.socketpair()
        with ours, its:
            yield ours.fileno(), its.fileno()


def test_a_reader_gets_all(ends):
    read, write = ends
    out = Outlet(write)
    out.write("one ä\n")
    out.write("lone \ud800\n")
    assert drain(read) == "one ä\nlone \\ud800\n"


def test_lines_are_dropped_when_nobody_reads(ends, monkeypatch):
    read, write = ends
    out = Outlet(write)
    lines = [f"{number} " + "x" * 1000 + "\n" for number in range(4000)]  # 4 MB
    for line in lines:
        out.write(line)
    assert len(out._pending) < PENDING + 2000
    text = ""
    while more := drain(read):
        text += more
        out.write("")
    out.write("back\n")
    *kept, notice, last = (text + drain(read)).splitlines(keepends=True)
    assert kept == lines[: len(kept)] and last == "back\n"
    assert notice == f"({len(lines) - len(kept)} log lines were dropped: nobody read them)\n"
    monkeypatch.setattr(outlet, "LAST_SECONDS", 0.1)
    for line in lines:
        out.write(line)
    begin = time.monotonic()
    out.close()
    assert time.monotonic() - begin < 20


def test_a_reader_who_is_gone(ends):
    read, write = ends
    with open("/dev/null") as null:
        os.dup2(null.fileno(), read)
    with pytest.raises(OSError):
        for _ in range(2):
            Outlet(write).write("x\n")
