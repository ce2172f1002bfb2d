"""Two hosts with a cable between them: network namespaces, or two loopback addresses."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

START_SECONDS = 240.0
_NUMBERS = itertools.count()
SECRET = "a secret of some length"


def run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


class Network:
    """What lies between the hosts."""

    addresses = ("127.0.0.1", "127.0.0.2")
    prefixes: tuple[Sequence[str], Sequence[str]] = ((), ())
    can_break = False

    def cut(self) -> None:
        raise NotImplementedError


class Namespaces(Network):
    """A pair of interfaces, each in a namespace of its own."""

    addresses = ("10.213.7.1", "10.213.7.2")
    can_break = True

    def __init__(self) -> None:
        own = next(_NUMBERS)
        self.names = [f"penstock-{os.getpid()}-{own}-{place}" for place in (0, 1)]
        self._ends = [f"p{os.getpid() % 1_000_000}{own}{side}" for side in "ab"]
        self.prefixes = tuple(("ip", "netns", "exec", name) for name in self.names)  # type: ignore[assignment]

    def make(self) -> bool:
        """False where this user may not, or there is no such thing here."""
        ends = self._ends
        if not all(run("ip", "netns", "add", name) for name in self.names):
            return False
        if not run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]):
            return False
        for name, end, address in zip(self.names, ends, self.addresses, strict=True):
            inside = ("ip", "netns", "exec", name, "ip")
            ok = run("ip", "link", "set", end, "netns", name)
            ok = ok and run(*inside, "addr", "add", f"{address}/24", "dev", end)
            ok = ok and run(*inside, "link", "set", end, "up")
            if not (ok and run(*inside, "link", "set", "lo", "up")):
                return False
        return True

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        run("ip", "netns", "exec", self.names[1], "ip", "link", "set", self._ends[1], "down")

    def remove(self) -> None:
        for name in self.names:
            run("ip", "netns", "del", name)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    namespaces = Namespaces()
    try:
        yield namespaces if namespaces.make() else Network()
    finally:
        namespaces.remove()


def free_ports() -> int:
    """The first of some that are free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1]) - 40


class Host:
    """A launcher on one of them."""

    def __init__(
        self, net: Network, rank: int, port: int, folder: Path, keys: Path, *arguments: str
    ) -> None:
        """keys: a file with the group's secret, or a folder with one of certificates a rank."""
        folder = folder / f"host-{rank}"
        folder.mkdir(parents=True)
        self.port = port
        self.uds = folder / "http.sock"
        self._output = folder / "output.log"
        command = [
            *net.prefixes[rank],
            *(sys.executable, "-m", "penstock_launcher", "--device", "cpu"),
            *("--num-shard", "2", "--nnodes", "2", "--node-rank", str(rank)),
            *("--master-addr", net.addresses[0], "--master-port", str(port)),
            *("--shard-uds-path", str(folder / "run")),
            *(
                ("--hosts-certs", f"{keys}/{rank}")
                if keys.is_dir()
                else ("--hosts-secret-file", keys)
            ),
            *(("--uds", str(self.uds)) if rank == 0 else ()),
            *arguments,
        ]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def last_line(self) -> str:
        return self.log.strip().rsplit("\n", 1)[-1]

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while words not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def launcher(self) -> psutil.Process:
        """The launcher itself; `ip netns exec` becomes it."""
        return psutil.Process(self.process.pid)

    def shard(self) -> psutil.Process:
        return next(p for p in self.descendants() if "penstock_shard" in p.cmdline())

    def ended(self, seconds: float = 60.0) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        if self.process.poll() is None:
            children = self.descendants()
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            psutil.wait_procs(children, timeout=10)


@contextlib.contextmanager
def group(
    net: Network, folder: Path, *arguments: str, keys: Path | None = None
) -> Iterator[list[Host]]:
    """Both hosts, when they serve. keys: None: a secret."""
    if keys is None:
        keys = folder / "secret"
        keys.write_text(SECRET)
    port = free_ports()
    hosts = [Host(net, rank, port, folder, keys, *arguments) for rank in (0, 1)]
    try:
        hosts[0].wait_for("Penstock ready: ")
        yield hosts
    finally:
        for host in hosts:
            host.kill()
