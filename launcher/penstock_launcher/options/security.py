"""Who may call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock_launcher.kinds import many, path, text
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Security:
    api_key: tuple[Any, ...] = option(
        (),
        many(text(), separator=None),
        "Clients must send `Authorization: Bearer <key>`; repeatable, in the environment one. "
        "Requests of different keys share no cached prefixes. Other users of the machine see a "
        "command line, so better give it as API_KEY, or api-key-file",
        default_text="everybody may call",
        secret=True,
        also=("VLLM_API_KEY",),  # whoever sets it counts on being asked for it
    )
    api_key_file: str | None = option(
        None,
        path(),
        "File with further such keys, one a line; or, where its name ends in .toml, with names and "
        "limits (docs/keys.md). Read again when it changes, and on SIGHUP, which else ends the "
        "server",
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
