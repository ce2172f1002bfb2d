"""Which server is attacked: one of this machine, and nothing else."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

# Attackers call from another loopback address than the canary, so that a cap for each client
# holds the attackers and not the canary.
ATTACKER = "127.0.0.2"


@dataclass(frozen=True, slots=True)
class Target:
    """Host and port of the server, and the address that attacks come from (None: any)."""

    host: str
    port: int
    source: str | None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def authority(self) -> bytes:
        """What belongs into the Host header."""
        return self.url.removeprefix("http://").encode()


def loopback(url: str) -> Target:
    """The target that a URL names. Raises ValueError unless it is plain HTTP to this machine."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"expected http://127.0.0.1:PORT, given {url}")
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"expected a loopback address, given {host}") from None
    if not address.is_loopback:
        raise ValueError(f"only servers of this machine are attacked, given {host}")
    return Target(host, parts.port or 80, ATTACKER if address.version == 4 else None)
