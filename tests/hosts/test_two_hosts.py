"""One model on two hosts: they serve, end together, and the last line says which was at fault."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from hosts.two_hosts import SECRET, Host, Network, free_ports, group, network
from penstock_launcher.certificates import derived_authority, issue
from support.server import gone, running_server

pytestmark = pytest.mark.full
ROOT = Path(__file__).parents[2]
BODY = {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 12}}
LONG = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 900, "ignore_eos": True}}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: sockets lie in it, whose paths have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as found:
        yield found


def client(host: Host) -> aiohttp.ClientSession:
    connector = aiohttp.UnixConnector(str(host.uds))
    return aiohttp.ClientSession("http://localhost", connector=connector)


async def generated(host: Host) -> str:
    async with client(host) as http, http.post("/generate", json=BODY) as answer:
        assert answer.status == 200
        return str((await answer.json())["generated_text"])


async def streaming(host: Host, begun: asyncio.Event) -> str:
    """All of a long answer."""
    text = b""
    async with client(host) as http, http.post("/generate_stream", json=LONG) as answer:
        async for piece in answer.content.iter_any():
            text += piece
            begun.set()
    return text.decode()


def all_gone(hosts: list[Host], processes: list[psutil.Process]) -> bool:
    folders = [path for host in hosts for path in host.uds.parent.glob("run-*")]
    return gone(processes, 20) and not folders


async def test_they_serve_and_end_in_order(net: Network, tmp_path: Path) -> None:
    """The same answers as of one host. SIGTERM to host 0 lets streams end; both end with 0."""
    print(f"\nhosts at {net.addresses}, namespaces: {net.can_break}")
    with group(net, tmp_path) as hosts:
        text = await generated(hosts[0])
        processes = [p for host in hosts for p in host.descendants()]
        begun = asyncio.Event()
        stream = asyncio.create_task(streaming(hosts[0], begun))
        await begun.wait()
        hosts[0].launcher().send_signal(signal.SIGTERM)
        whole = await stream
        assert '"finish_reason":"length"' in whole.replace(" ", "") or "generated_text" in whole
        codes = [await asyncio.to_thread(host.ended) for host in hosts]
        assert codes == [0, 0], "\n".join(host.log for host in hosts)
        assert "host 0" in hosts[1].log and hosts[1].last_line.endswith("shut down")
        assert all_gone(hosts, processes)
    with running_server(tmp_path / "one", "--device", "cpu", "--num-shard", "2") as server:
        request = urllib.request.Request(
            f"{server.url}/generate",
            json.dumps(BODY).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["generated_text"] == text


async def test_certificates_that_are_given(net: Network, tmp_path: Path) -> None:
    """Made by the commands of the documentation."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    [commands] = [one for one in re.findall(r"```sh\n(.*?)```", page, re.S) if "ca.pem" in one]
    folder = tmp_path / "certificates"
    folder.mkdir()
    made = subprocess.run(["sh", "-ec", commands], cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    with group(net, tmp_path, keys=folder) as hosts:
        assert await generated(hosts[0])
        # an authority of another group's secret is none of theirs
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        pair = issue(derived_authority(SECRET.encode()), "penstock-host-0", ["penstock-host-0"])
        pair.write(stranger / "c.pem", stranger / "k.pem")
        door = net.addresses[1], hosts[0].port + 2
        assert asked(net, *door, stranger) != "answered"


async def test_a_shard_elsewhere_dies(net: Network, tmp_path: Path) -> None:
    """Under load: the stream ends with a typed error, and host 0 names host 1 and its shard."""
    with group(net, tmp_path) as hosts:
        processes = [p for host in hosts for p in host.descendants()]
        begun = asyncio.Event()
        stream = asyncio.create_task(streaming(hosts[0], begun))
        await begun.wait()
        hosts[1].shard().send_signal(signal.SIGKILL)
        last = (await stream).strip().rsplit("data:", 1)[-1]
        assert json.loads(last)["error_type"] == "generation"
        assert [await asyncio.to_thread(host.ended) for host in hosts] == [1, 1]
        assert f"host 1 ({net.addresses[1]}): shard 1 was killed by SIGKILL" in hosts[0].last_line
        assert "shard 1 was killed by SIGKILL" in hosts[1].last_line
        assert all_gone(hosts, processes)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_host_is_lost(net: Network, tmp_path: Path, lost: int) -> None:
    """As by a kill of all that it runs."""
    with group(net, tmp_path) as hosts:
        processes = [p for host in hosts for p in host.descendants()]
        hosts[lost].launcher().send_signal(signal.SIGKILL)
        assert hosts[1 - lost].ended() == 1
        line = hosts[1 - lost].last_line
        assert f"host {lost} ({net.addresses[lost]}) is lost: " in line, hosts[1 - lost].log
        assert all_gone([hosts[1 - lost]], processes)


def test_a_cable_is_cut(net: Network, tmp_path: Path) -> None:
    """Nobody is told; both notice, and name the other."""
    if not net.can_break:
        pytest.skip("two loopback addresses have no cable: no network namespaces here")
    with network() as own, group(own, tmp_path) as hosts:
        own.cut()
        for rank, host in enumerate(hosts):
            assert host.ended() == 1
            other = f"host {1 - rank} ({own.addresses[1 - rank]}) is lost"
            assert other in host.last_line and "nothing for 10 s" in host.last_line


async def test_sigterm_to_the_other_host(net: Network, tmp_path: Path) -> None:
    """As Kubernetes does, in any order: all drain."""
    with group(net, tmp_path) as hosts:
        begun = asyncio.Event()
        stream = asyncio.create_task(streaming(hosts[0], begun))
        await begun.wait()
        hosts[1].launcher().send_signal(signal.SIGTERM)
        assert "generated_text" in await stream
        codes = [await asyncio.to_thread(host.ended) for host in hosts]
        assert codes == [0, 0], "\n".join(host.log for host in hosts)


IN_NAMESPACE = """
import socket, ssl, sys
address, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["h2"])
if folder != "-":
    context.load_cert_chain(folder + "/c.pem", folder + "/k.pem")
try:
    with socket.create_connection((address, port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="x") as wire:
            wire.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(9))
            wire.settimeout(5)
            data = wire.recv(100) + wire.recv(100)
            print("answered" if data else "closed")
except ssl.SSLError as error:
    print("refused")
except OSError as error:
    print("closed")
"""


def asked(net: Network, address: str, port: int, folder: Path | None) -> str:
    """What becomes of a client at a port, from host 0. folder: with its certificate."""
    command = [*net.prefixes[0], sys.executable, "-c", IN_NAMESPACE, address, str(port)]
    command.append("-" if folder is None else str(folder))
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.stdout.strip()


def test_strangers_are_kept_out(net: Network, tmp_path: Path) -> None:
    """At the port of the launcher and at that of a shard: without a certificate, and with one of
    another secret. One of the group's own is let in."""
    folders = {}
    for name, secret in (("stranger", b"another secret"), ("member", SECRET.encode())):
        folder = folders[name] = tmp_path / name
        folder.mkdir()
        pair = issue(derived_authority(secret), "penstock-host-0", ["penstock-host-0"])
        pair.write(folder / "c.pem", folder / "k.pem")
    with group(net, tmp_path) as hosts:
        doors = (net.addresses[0], hosts[0].port + 1), (net.addresses[1], hosts[0].port + 2)
        for address, port in doors:
            assert asked(net, address, port, None) != "answered"
            assert asked(net, address, port, folders["stranger"]) != "answered"
        assert asked(net, *doors[1], folders["member"]) == "answered"
        assert all(host.process.poll() is None for host in hosts)


def test_hosts_that_do_not_fit(net: Network, tmp_path: Path) -> None:
    """Another secret, and other options: said in words, on both sides."""
    secret, other = tmp_path / "secret", tmp_path / "other"
    secret.write_text(SECRET)
    other.write_text("another secret of a length")
    port = free_ports()
    first = Host(net, 0, port, tmp_path / "a", secret, "--dtype", "float32")
    stranger = Host(net, 1, port, tmp_path / "b", other)
    try:
        assert stranger.ended(90) == 1
        assert "is none of this group" in stranger.last_line
        assert first.process.poll() is None
        second = Host(net, 1, port, tmp_path / "c", secret, "--dtype", "bfloat16")
        try:
            assert (first.ended(90), second.ended(90)) == (1, 1)
            assert (
                "serves another thing: dtype is bfloat16 there and float32 here" in first.last_line
            )
            assert "it serves another thing than host 0: dtype is bfloat16" in second.last_line
        finally:
            second.kill()
    finally:
        first.kill()
        stranger.kill()
