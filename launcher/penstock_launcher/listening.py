"""The server's ports, taken before a model is fetched or loaded, and handed on to the router.

The sockets are bound here, so that an operator hears of a port that cannot be had at once and not
after minutes, and nobody else takes it meanwhile. Only the router listens, when it can answer:
until then clients are refused, as they are by a server that is not there.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options

# What to do, by the reason.
ADVICE = {
    errno.EADDRINUSE: "; end what listens there, or give another --{option}",
    errno.EACCES: "; ports below 1024 are for root: give another --{option}",
    errno.EADDRNOTAVAIL: "; --hostname must be an address of this machine",
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Bound sockets. A context manager that closes them; so does `close`, once others hold them."""

    main: socket.socket
    prometheus: socket.socket | None
    path: Path | None = None  # of the main one, where it is a Unix socket

    @classmethod
    def take(cls, options: Options) -> Self:
        """Raises LauncherError that names option, address, port and reason."""
        with contextlib.ExitStack() as stack:
            if options.node_rank:  # another host serves HTTP
                return cls(socket.socket(), None)
            path = None if options.uds is None else Path(options.uds).absolute()
            if path is not None:
                main = stack.enter_context(bind_path(path))
            else:
                main = stack.enter_context(bind(options.hostname, options.port, "port"))
            prometheus = None
            if options.prometheus_port is not None:
                prometheus = bind(options.hostname, options.prometheus_port, "prometheus-port")
            stack.pop_all()
            return cls(main, prometheus, path)

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
        if self.path is not None:
            self.path.unlink(missing_ok=True)


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
    advice = ADVICE.get(reason.errno or 0, "").format(option=option)
    raise LauncherError(
        f"cannot listen at {hostname} port {port} (--{option}): {reason.strerror}{advice}"
    )


def bind_path(path: Path) -> socket.socket:
    """A Unix socket, for this user and group. One that a dead server has left makes way.

    Raises LauncherError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        umask = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(umask)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise LauncherError(f"cannot listen at {path} (--uds): {reason}") from None
    return listener


def _clear(path: Path) -> None:
    """Raises OSError where something stands there that is in use, or no socket."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(errno.EEXIST, "there is a file of that name")
    if _in_use(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    path.unlink()


def _in_use(path: Path) -> bool:
    """Whether somebody listens there, or has bound it and still loads."""
    bound = Path("/proc/net/unix").read_text().splitlines()
    if any(line.endswith(f" {path}") for line in bound):
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


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
