"""The real launcher as a child process: what the end-to-end tests and nothing else talk to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

START_SECONDS = 120.0
READY = re.compile(r"Penstock ready: (https?://\S+|unix:\S+)")
# Of a server whose limits do not matter: its shards warm up in a third of the time.
SMALL = (
    *("--max-batch-prefill-tokens", "64", "--max-batch-total-tokens", "8192"),
    *("--max-batch-size", "16"),
)
ROLES = {"penstock_shard": "shard", "penstock_router": "router", "penstock_router.fronts": "front"}


class Server:
    """A running launcher, its URL, its children and everything it printed."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        env: dict[str, str] | None,
        descriptors: int | None = None,
        tree: Path | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """descriptors: that each of its processes may have, as of `ulimit -n`. tree: another
        version of the repository than this one, whose code runs. within: a command that runs the
        one behind it."""
        folder.mkdir(parents=True, exist_ok=True)
        # a socket's path is short, and a test's folder may not be
        near = folder if len(str(folder)) < 60 else Path(tempfile.mkdtemp(prefix="penstock-test-"))
        self.sockets = near / "run"
        self.output = folder / "output.log"
        command = [sys.executable, "-m", "penstock_launcher", "--hostname", "127.0.0.1"]
        command += ["--port", "0", "--shard-uds-path", str(self.sockets), *arguments]
        if descriptors is not None:
            command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
        command = [*within, *command]
        if tree is not None:
            packages = ("proto", "launcher", "router", "shard", "kernels", "quantization")
            path = os.pathsep.join(str(tree / package) for package in packages)
            env = {**(env or {}), "PYTHONPATH": path}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})},
                start_new_session=True,
            )
        self.url = ""

    def wait_ready(self) -> None:
        """Return when the launcher says the URL. Raises AssertionError when it ends before."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if match := READY.search(self.log):
                self.url = match[1]
                return
            assert self.process.poll() is None, f"the launcher ended early:\n{self.log}"
            time.sleep(0.05)
        raise AssertionError(f"not ready after {START_SECONDS} s:\n{self.log}")

    @property
    def log(self) -> str:
        """Everything that launcher, router and shards have printed so far."""
        return self.output.read_text(errors="replace")

    @property
    def last_line(self) -> str:
        """The last log line."""
        return self.log.strip().rsplit("\n", 1)[-1]

    def children(self, role: str) -> list[psutil.Process]:
        """The live children of one kind: `shard`, `front` (in order of start) or `router`."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if role in map(ROLES.get, process.cmdline()):
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def descendants(self) -> list[psutil.Process]:
        """Every process that the launcher has started and that lives."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def left_behind(self) -> list[Path]:
        """Socket folders that still stand."""
        return sorted(self.sockets.parent.glob(f"{self.sockets.name}-*"))


@contextmanager
def running_server(
    folder: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    descriptors: int | None = None,
    within: Sequence[str] = (),
) -> Iterator[Server]:
    """A server that is ready; ended, and its processes with it, when the block ends."""
    server = Server(arguments, folder, env, descriptors, within=within)
    try:
        server.wait_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.terminate()
            try:
                server.process.wait(60)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()


def gone(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Whether all of them end within so many seconds."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
