"""The server's ports, taken before a model is fetched or loaded, and handed on to the router.

The sockets are bound here, so that an operator hears of a port that cannot be had at once and not
after minutes, and nobody else takes it meanwhile. Only the router listens, when it can answer:
until then clients are refused, as they are by a server that is not there.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from dataclasses import dataclass
from typing import Self

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options


@dataclass(frozen=True, slots=True)
class Ports:
    """Bound sockets. A context manager that closes them; so does `close`, once others hold them."""

    main: socket.socket
    prometheus: socket.socket | None

    @classmethod
    def take(cls, options: Options) -> Self:
        """Raises LauncherError that names option, address, port and reason."""
        with contextlib.ExitStack() as stack:
            main = stack.enter_context(bind(options.hostname, options.port, "port"))
            prometheus = None
            if options.prometheus_port is not None:
                prometheus = bind(options.hostname, options.prometheus_port, "prometheus-port")
            stack.pop_all()
            return cls(main, prometheus)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the router inherits."""
        return tuple(one.fileno() for one in (self.main, self.prometheus) if one is not None)

    def close(self) -> None:
        """Here; whoever inherited them still has them."""
        self.main.close()
        if self.prometheus is not None:
            self.prometheus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bind(hostname: str, port: int, option: str) -> socket.socket:
    """A socket with an address; `::` stands for all of IPv4 too. Raises LauncherError."""
    try:
        return _bound(hostname, port, share=False)
    except OSError as error:
        reason: OSError = error
    if reason.errno == errno.EADDRINUSE:
        # Maybe only by connections of an earlier server, which the kernel keeps for a minute. Not
        # tried first: two that both share would both be bound, until one of them listens.
        with contextlib.suppress(OSError):
            return _bound(hostname, port, share=True)
    raise LauncherError(f"cannot listen at {hostname} port {port} (--{option}): {reason.strerror}")


def _bound(hostname: str, port: int, *, share: bool) -> socket.socket:
    address = ipaddress.ip_address(hostname)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, share)
        if family == socket.AF_INET6:
            only = not address.is_unspecified
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        listener.bind((hostname, port))
    except OSError:
        listener.close()
        raise
    return listener
