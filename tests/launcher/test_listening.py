"""Ports before anything else."""

import socket

import pytest

from penstock_launcher.errors import LauncherError
from penstock_launcher.listening import Ports, bind
from penstock_launcher.options import Options


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def test_n1_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = rf"cannot listen at 127.0.0.1 port {port} \(--port\): Address already in use"
        with pytest.raises(LauncherError, match=words):
            Ports.take(Options(hostname="127.0.0.1", port=port))
        words = rf"port {port} \(--prometheus-port\): .*, or give another --prometheus-port"
        with pytest.raises(LauncherError, match=words):
            Ports.take(Options(hostname="127.0.0.1", port=0, prometheus_port=port))


def test_an_address_of_another_machine():
    with pytest.raises(LauncherError, match="--hostname must be an address of this machine"):
        bind("192.0.2.1", 0, "port")


def test_a_server_that_still_loads_has_its_port():
    with bind("127.0.0.1", 0, "port") as first:
        port = first.getsockname()[1]
        with pytest.raises(LauncherError, match="in use"):
            bind("127.0.0.1", port, "port")
        with pytest.raises(ConnectionRefusedError):  # nobody answers yet
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_connections_of_an_earlier_server_do_not_matter():
    """They stay in TIME_WAIT for a minute where the server closed first."""
    with bind("127.0.0.1", 0, "port") as listener:
        address = listener.getsockname()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the router does
        listener.listen()
        with socket.create_connection(address) as client:
            listener.accept()[0].close()
            assert client.recv(1) == b""
    bind("127.0.0.1", address[1], "port").close()


@pytest.mark.parametrize("hostname", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_is_not_ours(hostname):
    with pytest.raises(LauncherError, match=rf"{hostname} port 0 \(--port\): "):
        bind(hostname, 0, "port")


@needs_ipv6
def test_w15_all_of_ipv6_is_all_of_ipv4():
    with bind("::", 0, "port") as listener:
        listener.listen()
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), timeout=5).close()
    with bind("::1", 0, "port") as listener:
        listener.listen()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=5)


@needs_ipv6
def test_w15_ipv4_may_be_what_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LauncherError, match="in use"):
            bind("::", port, "port")


def test_a_unix_socket_is_one_servers(tmp_path):
    """Also of one that still loads; what a dead server left makes way, and a file does not."""
    path = tmp_path / "llm.sock"
    options = Options(uds=str(path))
    with Ports.take(options) as ports:
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(LauncherError, match=r"llm.sock \(--uds\): Address already in use"):
            Ports.take(options)
        ports.main.listen()
        with pytest.raises(LauncherError, match="in use"):
            Ports.take(options)
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    Ports.take(options).close()
    path.unlink()
    path.write_text("data")
    with pytest.raises(LauncherError, match="a file of that name"):
        Ports.take(options)
    assert path.read_text() == "data"
    with pytest.raises(LauncherError, match="--uds"):
        Ports.take(Options(uds=str(tmp_path / ("x" * 120))))
