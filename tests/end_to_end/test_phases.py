"""Each process is killed in each phase of its life: the group ends, says who, and leaves nothing.

While it decodes: `test_faults` and `test_http_process_faults`.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from support.server import Server, gone

ARGUMENTS = ("--num-shard", "2", "--device", "cpu", "--http-processes", "1")
VICTIMS = {"shard 0": ("shard", 0), "shard 1": ("shard", 1), "router": ("router", 0)}
VICTIMS["front"] = ("front", 0)
NAMES = {"front": "HTTP process 0"}  # as the log has it
LONG = {"inputs": "word " * 1500, "parameters": {"max_new_tokens": 1}}


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def victim_of(server: Server, victim: str) -> psutil.Process | None:
    role, place = VICTIMS[victim]
    found = server.children(role)
    return found[place] if len(found) > place else None


def loading(server: Server, victim: str) -> None:
    """It has just begun."""
    until(lambda: victim_of(server, victim))


def warming_up(server: Server, victim: str) -> None:
    until(lambda: "warming up" in server.log)
    until(lambda: victim_of(server, victim))


def idle(server: Server, victim: str) -> None:
    server.wait_ready()


def prefilling(server: Server, victim: str) -> None:
    """A long prompt is on its way, or is being computed; its client waits."""
    server.wait_ready()
    body = json.dumps(LONG).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    sock = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=60)
    sock.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    CLIENTS.append(sock)
    time.sleep(0.05)


CLIENTS: list[socket.socket] = []
PHASES = {"loading": loading, "warming up": warming_up, "idle": idle, "prefilling": prefilling}


@pytest.mark.full
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("phase", PHASES)
def test_killed(tmp_path: Path, phase: str, victim: str) -> None:
    server = Server(ARGUMENTS, tmp_path, None)
    try:
        PHASES[phase](server, victim)
        processes = server.descendants()
        process = victim_of(server, victim)
        assert process is not None
        process.send_signal(signal.SIGKILL)
        assert server.process.wait(120) not in (0, None)
        assert gone(processes, 60) and not server.left_behind()
        assert NAMES.get(victim, victim) in server.last_line, server.log
        assert "SIGKILL" in server.last_line, server.log
        while CLIENTS:  # whoever waits is told, or cut off
            with CLIENTS.pop() as sock:
                sock.settimeout(60)
                try:
                    answer = b"".join(iter(lambda: sock.recv(65536), b""))
                except ConnectionError:
                    answer = b""
            assert not answer.startswith(b"HTTP/1.1 200") or b"generated_text" in answer
    finally:
        server.process.kill()
        server.process.wait()
