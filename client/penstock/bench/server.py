"""The server that is measured: where it listens, what it serves, whether it is up."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

PORTS = (3000, 8000, 30000, 8080)  # by default: Penstock and TGI, vLLM, SGLang, others
POLL_SECONDS = 0.5


class NoServer(Exception):
    """Nothing that can be measured; the message is for the user."""


def server_url(base_url: str | None, host: str, port: int | None) -> str:
    """The address without a slash at its end. Raises NoServer."""
    if base_url is not None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise NoServer(f"--base-url {base_url!r} is no http or https address")
        return base_url.rstrip("/")
    shown = f"[{host}]" if ":" in host else host
    if port is not None:
        return f"http://{shown}:{port}"
    for candidate in PORTS:
        if listens(host, candidate):
            return f"http://{shown}:{candidate}"
    tried = ", ".join(map(str, PORTS))
    raise NoServer(f"nobody listens at {host} on the ports {tried}: give --base-url or --port")


def listens(host: str, port: int) -> bool:
    """Whether a connection is taken."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def wait_ready(url: str, seconds: float) -> None:
    """Returns when the server takes connections and /health is no 5xx. Raises NoServer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=10).close()
            return
        except urllib.error.HTTPError as error:
            if error.code < 500:  # it is up, and has no such route, or wants a key for it
                return
            reason = f"{url}/health answers {error.code}"
        except OSError as error:
            reason = f"{url} cannot be reached: {getattr(error, 'reason', error)}"
        if time.monotonic() > deadline:
            raise NoServer(reason)
        time.sleep(POLL_SECONDS)


def flush_cache(url: str, headers: Mapping[str, str]) -> None:
    """Has the server forget its prefixes. Raises NoServer where it does not."""
    request = urllib.request.Request(f"{url}/flush_cache", headers=dict(headers), method="POST")
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except OSError as error:
        raise NoServer(f"{url}/flush_cache: {error}") from None
