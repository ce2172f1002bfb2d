"""Starts Penstock through its launcher, and always ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import ROOT

# So that a checkout serves without having been installed.
COMPONENTS = os.pathsep.join(
    [
        str(ROOT / each)
        for each in ("proto", "launcher", "router", "shard", "kernels", "quantization", "client")
    ]
    + [path for path in [os.environ.get("PYTHONPATH")] if path]
)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answered /health."""

    url: str
    pid: int  # of the launcher
    ready_seconds: float  # from the start of the launcher


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def penstock(
    arguments: list[str],
    log: Path,
    *,
    ready_seconds: float = 300.0,
    environment: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Runs `python -m penstock_launcher` with these arguments until the block ends.

    Raises RuntimeError, with the end of the log, when it dies or is not ready in time.
    """
    port = free_port()
    command = [sys.executable, "-m", "penstock_launcher", "--hostname", "127.0.0.1"]
    command += ["--port", str(port), *arguments]
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": COMPONENTS} | (environment or {}),
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_healthy(url, process, started + ready_seconds, log)
            yield Server(url, process.pid, time.monotonic() - started)
        finally:
            end(process)


def wait_healthy(url: str, process: subprocess.Popen[bytes], deadline: float, log: Path) -> None:
    """Polls /health."""
    while True:
        if healthy(url):
            return
        if process.poll() is not None:
            raise RuntimeError(f"the launcher ended with {process.returncode}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the launcher was not ready in time:\n{tail(log)}")
        time.sleep(0.1)


def healthy(url: str) -> bool:
    """Whether /health answers 200."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:  # URLError and HTTPError are among them
        return False


def tail(log: Path, size: int = 3000) -> str:
    """The end of a log."""
    return log.read_bytes()[-size:].decode(errors="replace")


def end(process: subprocess.Popen[bytes], grace_seconds: float = 15.0) -> None:
    """SIGTERM, and if that does not help SIGKILL to the whole session."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
