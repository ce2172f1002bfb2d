"""How connections are kept, and when they are closed."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import integer, number
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Connections:
    max_headers: int = option(128, integer(16, 1024), "Headers of a request; beyond: 400")
    max_header_size: int = option(
        8190,
        integer(1024, 65_536, "bytes"),
        "Bytes of a header, and of the line with the path; beyond: 400",
    )
    header_timeout: float = option(
        15.0,
        number(0, 3600, above=True),
        "Seconds from the first byte of a request to the end of its headers; beyond: 408. Bodies "
        "have 15 s for their next bytes, and 60 s in all",
    )
    idle_timeout: float = option(
        75.0,
        number(0, 86_400, above=True),
        "Seconds that a connection may do nothing: before its first request, and between two. "
        "Proxies usually give up after 60 s, and must do so first",
    )
    stream_keepalive: float = option(
        15.0,
        number(0, 3600),
        "Seconds of silence after which a stream sends its head, or a comment that clients pass "
        "over: proxies cut connections that are silent for 30 or 60 s. 0: never",
    )
