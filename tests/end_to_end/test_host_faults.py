"""A host that is no good: a full disk, a tiny /dev/shm, a log that takes nothing, a clock that
jumps. Each with a real server of the demo model, which serves on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.server import Server, running_server

pytestmark = pytest.mark.full
ONE = ("--device", "cpu", "--num-shard", "1", "--http-processes", "0")
BODY = {"inputs": "Tell me", "parameters": {"max_new_tokens": 6}}
# $1: a folder that becomes a disk of 1 MiB; /dev/shm becomes one too
SMALL_DISKS = """
mount -t tmpfs -o size=1m none /dev/shm && mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"
"""


def generate(url: str) -> Any:
    data = json.dumps(BODY).encode()
    request = urllib.request.Request(f"{url}/generate", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def mount_namespace(folder: Path) -> list[str]:
    """A command that runs another one where `folder` and /dev/shm hold 1 MiB."""
    new = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    command = [*new, "sh", "-c", SMALL_DISKS, "sh", str(folder)]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no mount namespace for this user: {tried.stderr.strip()}")
    return command


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two gloo shards."""
    folder = tmp_path_factory.mktemp("cramped")
    (disk := folder / "disk").mkdir()
    arguments = ("--device", "cpu", "--num-shard", "2", "--http-processes", "0")
    within = mount_namespace(disk)
    with running_server(
        folder, *arguments, "--batch-folder", str(disk / "batches"), within=within
    ) as server:
        yield server


def test_gloo_needs_no_shared_memory(cramped: Server) -> None:
    assert generate(cramped.url)["generated_text"]
    assert "/dev/shm" not in cramped.log


def test_a_full_disk_refuses_files_and_nothing_else(cramped: Server) -> None:
    def upload(size: int) -> httpx.Response:
        files = {"file": ("in.jsonl", b"x" * size)}
        data = {"purpose": "batch"}
        return httpx.post(f"{cramped.url}/v1/files", files=files, data=data, timeout=60)

    for _ in range(2):
        refused = upload(3 << 20)
        assert refused.status_code == 429 and "the disk is full" in refused.text
    assert generate(cramped.url)["generated_text"]
    kept = upload(200_000)  # nothing of the others is left
    assert kept.status_code == 200
    url = f"{cramped.url}/v1/files/{kept.json()['id']}"
    assert len(httpx.get(f"{url}/content", timeout=60).content) == 200_000
    assert "Traceback" not in cramped.log


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("log", ["/dev/full", "closed"])
def test_a_log_that_takes_nothing(tmp_path: Path, log: str) -> None:
    """A full disk below the log, or none at all: it serves, and ends in order."""
    port = free_port()
    command = [sys.executable, "-m", "penstock_launcher", "--hostname", "127.0.0.1", *ONE]
    command += ["--port", str(port), "--shard-uds-path", str(tmp_path / "s")]
    shell = 'exec "$@" >&-' if log == "closed" else f'exec "$@" >{log}'
    process = subprocess.Popen(
        ["sh", "-c", shell, "sh", *command], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline
            try:
                assert generate(f"http://127.0.0.1:{port}")["generated_text"]
                break
            except OSError:
                time.sleep(0.2)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    """Ten days on, a year back: streams go on, nothing is late, and no process is taken for dead.

    libfaketime moves the wall's clock of all processes; the monotonic one is the kernel's.
    """
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    if library is None:
        pytest.skip("libfaketime is not installed: apt-get install faketime")
    (clock := tmp_path / "clock").write_text("+0")
    environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",  # seconds
        "DONT_FAKE_MONOTONIC": "1",
    }
    arguments = ("--device", "cpu", "--num-shard", "1", "--http-processes", "1")
    with running_server(tmp_path, *arguments, "--step-timeout", "30", env=environment) as server:
        before = generate(server.url)
        body = {"prompt": "Tell me", "max_tokens": 40, "ignore_eos": True, "stream": True}
        for jump in (timedelta(days=10), timedelta(days=-365), timedelta()):
            with httpx.stream(
                "POST", f"{server.url}/v1/completions", json=body, timeout=120
            ) as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("data: {")
                clock.write_text(f"{int(jump.total_seconds()):+}")
                rest = [line for line in lines if line]
            assert rest[-1] == "data: [DONE]"
            there = f"{datetime.now(UTC) + jump:%Y-%m-%d}"
            deadline = time.monotonic() + 60
            while not server.log.splitlines()[-1].startswith(there):  # until it has jumped
                assert generate(server.url) == before and time.monotonic() < deadline
            assert httpx.get(f"{server.url}/ready", timeout=60).status_code == 200
        assert "not ready" not in server.log
        # Its end is no part of this: below libfaketime 0.9.10 Python's time.sleep fails.
