"""Who may call, and how much."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import COUNT, integer, many, network, path, text
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Security:
    api_key: tuple[str, ...] = option(
        (),
        many(text(), separator=None),
        "Clients must send `Authorization: Bearer <key>`; repeatable, in the environment one. "
        "Requests of different keys share no cached prefixes. Other users of the machine see a "
        "command line, so better give it as API_KEY, or api-key-file",
        default_text="everybody may call",
        secret=True,
    )
    api_key_file: str | None = option(
        None,
        path(),
        "File with further such keys, one a line; read at the start, and again on SIGHUP, which "
        "else ends the server",
    )
    ssl_certfile: str | None = option(
        None,
        path(),
        "Certificate (PEM, with those that lead to its authority) for HTTPS. It, the key and the "
        "authorities are read again when their files change",
        default_text="HTTP",
    )
    ssl_keyfile: str | None = option(
        None, path(), "Its key (PEM, not encrypted)", default_text="in ssl-certfile"
    )
    ssl_ca_certs: str | None = option(
        None,
        path(),
        "Authorities (PEM) by one of which clients' certificates must be signed",
        default_text="clients need no certificate",
    )
    cors_allow_origin: tuple[str, ...] = option(
        (), many(text()), "Origin that browsers may call from; repeatable", default_text="any"
    )
    max_connections_per_client: int = option(
        1024,
        COUNT,
        "Connections of one client (IP address; of IPv6 the first 64 bits) at a time, if there are "
        "descriptors for as many; one more closes the oldest idle one, or is answered with 429",
    )
    max_requests_per_client: int = option(
        0,
        integer(0, 1_000_000),
        "Requests that generate, of one client, at a time; beyond: 429 at once. 0: only "
        "max-concurrent-requests counts",
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        many(network()),
        "Proxies (IP address or network) whose connections are not counted, and whose "
        "X-Forwarded-For says who the client is; repeatable",
        default_text="none: the address of the connection is the client",
    )
