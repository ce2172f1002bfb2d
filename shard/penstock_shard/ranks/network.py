"""Which network interface leads to another host."""

from __future__ import annotations

import fcntl
import socket
import struct

SIOCGIFADDR = 0x8915  # linux/sockios.h: the IPv4 address of an interface


def interface_towards(host: str) -> str | None:
    """The interface whose IPv4 address this host has on the way to another; None: not known.

    gloo takes that of the machine's own name otherwise, which often is one of the loopback.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            mine = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                if _address(probe, name) == mine:
                    return name
    except OSError:
        pass
    return None


def _address(sock: socket.socket, interface: str) -> str | None:
    request = struct.pack("256s", interface.encode()[:15])
    try:
        answer = fcntl.ioctl(sock, SIOCGIFADDR, request)
    except OSError:  # it has none
        return None
    return socket.inet_ntoa(answer[20:24])
