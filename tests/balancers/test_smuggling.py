"""Requests hidden in others, through a real balancer and straight to the server: each request has
one answer at most, and nobody gets another one's.

The two must agree where a request ends. Where they do not, what is hidden in a body is an answer
for whoever uses the connection next.
"""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from balancers.fleet import ENVOY, HAPROXY, KINDS, Kind, balancer
from support.server import Server, running_server

pytestmark = pytest.mark.full
HIDDEN = b"GET /hidden0 HTTP/1.1\r\nHost: x\r\n\r\n"
SECONDS = 1.5  # without another byte, after which no second answer comes
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def length(count: int) -> bytes:
    return b"Content-Length: %d\r\n" % count


# Lines of the head, and the body.
VARIANTS: dict[str, tuple[bytes, bytes]] = {
    "CL.TE": (length(5 + len(HIDDEN)) + CHUNKED, b"0\r\n\r\n" + HIDDEN),
    "TE.CL": (CHUNKED + length(3), b"8\r\nSMUGGLED\r\n0\r\n\r\n" + HIDDEN),
    "CL.CL, the first": (length(0) + length(len(HIDDEN)), HIDDEN),
    "CL.CL, the last": (length(len(HIDDEN)) + length(0), HIDDEN),
    "two in one line": (b"Content-Length: 0, %d\r\n" % len(HIDDEN), HIDDEN),
    "a sign": (b"Content-Length: +0\r\n", HIDDEN),
    "hexadecimal": (b"Content-Length: 0x0\r\n", HIDDEN),
    "TE.TE": (CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n" + HIDDEN),
    "chunked twice": (b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "a spelling": (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "a space before the colon": (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "a tab": (b"Transfer-Encoding:\tchunked\r\n" + length(4), b"0\r\n\r\n" + HIDDEN),
    "a folded line": (b"Transfer-Encoding:\r\n chunked\r\n" + length(4), b"0\r\n\r\n" + HIDDEN),
    "a bare line feed": (b"X: y\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "a size that is none": (CHUNKED, b"zz\r\n\r\n0\r\n\r\n" + HIDDEN),
    "a size with a sign": (CHUNKED, b"+0\r\n\r\n" + HIDDEN),
    "a chunk that ends otherwise": (CHUNKED, b"1\nx\n0\n\n" + HIDDEN),
    "an extension with a line feed": (CHUNKED, b"0;a\nb\r\n\r\n" + HIDDEN),
}

# HAProxy takes a bare line feed for the end of a line. So it sees two requests, one behind the
# other, and passes both on in lines of its own: the server agrees with it, and each has its answer.
TWO_REQUESTS_FOR_HAPROXY = {"a bare line feed", "a chunk that ends otherwise"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    arguments = ("--device", "cpu", "--num-shard", "1", "--http-processes", "0")
    with running_server(tmp_path_factory.mktemp("server"), *arguments) as server:
        yield server


@pytest.fixture(scope="module", params=["alone", *KINDS])
def url(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "alone":
        yield server.url
        return
    kind: Kind = {"haproxy": HAPROXY, "envoy": ENVOY}[request.param]
    replica = SimpleNamespace(address=server.url.removeprefix("http://"))
    folder: Path = tmp_path_factory.mktemp(request.param)
    with balancer(kind, folder, [replica]) as url:  # type: ignore[list-item]
        yield url


def send(url: str, data: bytes) -> bytes:
    """Everything that comes back until the other side ends, or says nothing more."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as sock:
        sock.sendall(data)
        received = b""
        while True:
            # an answer may take its time; only a second one must come soon
            sock.settimeout(SECONDS if received else 60)
            try:
                part = sock.recv(65536)
            except (TimeoutError, ConnectionError):
                return received
            if not part:
                return received
            received += part


@pytest.mark.parametrize("variant", VARIANTS)
def test_never_two_answers_to_one_request(url: str, server: Server, variant: str) -> None:
    path = b"/hidden%d" % list(VARIANTS).index(variant)
    head, body = (part.replace(b"/hidden0", path) for part in VARIANTS[variant])
    data = b"POST /generate HTTP/1.1\r\nHost: x\r\n" + JSON + head + b"\r\n" + body
    text = send(url, data)
    answers = re.findall(rb"HTTP/1\.[01] (\d{3})", text)
    lenient = variant in TWO_REQUESTS_FOR_HAPROXY and url != server.url
    assert len(answers) <= 1 + lenient, text
    assert all(status[:1] == b"4" or status == b"501" for status in answers), text
    # Whoever comes next gets what they asked for, on whichever connection the balancer keeps.
    for _ in range(3):
        with urllib.request.urlopen(f"{url}/info", timeout=60) as reply:
            assert "model_id" in json.load(reply)
    assert lenient or f"{path.decode()} " not in server.log
