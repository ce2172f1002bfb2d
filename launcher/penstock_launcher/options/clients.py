"""What one client may take."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import COUNT, integer, many, network
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Clients:
    max_requests_per_client: int = option(
        0,
        integer(0, 1_000_000),
        "Requests that generate, of one client, at a time; beyond: 429 at once. 0: only "
        "max-concurrent-requests counts",
    )
    max_connections_per_client: int = option(
        1024,
        COUNT,
        "Connections of one client (IP address; of IPv6 the first 64 bits) at a time, if there are "
        "descriptors for as many; one more closes the oldest idle one, or is answered with 429",
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        many(network()),
        "Proxies (IP address or network) whose connections are not counted, and whose "
        "X-Forwarded-For says who the client is; repeatable",
        default_text="none: the address of the connection is the client",
    )
