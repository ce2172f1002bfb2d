"""Who a client is: the address at the other end, or what a trusted proxy says it is."""

from __future__ import annotations

import contextlib
import ipaddress
from collections import Counter
from collections.abc import Iterator, Sequence

from aiohttp import web

from penstock_router.api.errors import ApiError, Kind

IPV6_PREFIX = 64  # bits: what one subscriber has

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Clients:
    """Names clients, and counts the requests of each that are in the server."""

    def __init__(self, trusted_proxies: Sequence[str], most_requests: int) -> None:
        """trusted_proxies: addresses and networks. most_requests: of one client; 0: any."""
        self._trusted = [ipaddress.ip_network(proxy, strict=False) for proxy in trusted_proxies]
        self._most = most_requests
        self._running: Counter[str] = Counter()

    def of_peer(self, peer: object) -> str | None:
        """The client that holds a connection; None for a trusted proxy, which has many."""
        address = _address(str(peer[0])) if isinstance(peer, tuple) else None
        return None if address is None or self._trusts(address) else _name(address)

    def of_request(self, request: web.Request) -> str | None:
        """The client that sent a request; None where only a trusted proxy is known.

        Of X-Forwarded-For the last address counts that no trusted proxy has: each appends whom it
        heard, and what stands before that anybody may have written.
        """
        peer = request.transport and request.transport.get_extra_info("peername")
        client = self.of_peer(peer)
        if client is not None or not self._trusted:
            return client
        lines = request.headers.getall("X-Forwarded-For", [])
        for text in reversed(",".join(lines).split(",")):
            address = _address(text.strip())
            if address is None:
                return None
            if not self._trusts(address):
                return _name(address)
        return None

    @contextlib.contextmanager
    def serving(self, request: web.Request) -> Iterator[None]:
        """Count a request. Raises ApiError when its client has as many as it may."""
        client = self.of_request(request) if self._most else None
        if client is None:
            yield
            return
        if self._running[client] >= self._most:
            raise ApiError(
                Kind.TOO_MANY,
                f"Too many requests of one client at a time: at most {self._most} "
                "(`--max-requests-per-client`)",
            )
        self._running[client] += 1
        try:
            yield
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _address(text: str) -> Address | None:
    """An address, with a port or without, as proxies write it; None for anything else."""
    host = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _name(address: Address) -> str:
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
