"""A log that nobody reads holds up nobody."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock_launcher import outlet
from penstock_launcher.outlet import PENDING, Outlet


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


def test_a_server_goes_on_when_nobody_reads_its_log(tmp_path: Path) -> None:
    """Its pipe is full from the start, and the launcher ends as ever."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, b"x" * 4096)
    command = [sys.executable, "-m", "penstock_launcher", "--model-id", "/no/such/folder", "--env"]
    process = subprocess.Popen(command, stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    assert process.wait(60) == 1
    os.close(read)


def test_no_standard_output_at_all() -> None:
    command = f"exec {sys.executable} -m penstock_launcher --model-id /no/such/folder >&-"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (1, "")


def test_the_next_file_is_no_standard_one() -> None:
    """A launcher without standard output opened its pipes and sockets under that number."""
    code = """
import os
from penstock_launcher.outlet import open_standard_descriptors
open_standard_descriptors()
assert os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev
assert min(os.pipe()) > 2
"""
    command = ["sh", "-c", 'exec "$@" >&- <&-', "sh", sys.executable, "-c", code]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
