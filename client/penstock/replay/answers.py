"""A server's answer to a request: whole, or the events of a stream."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from penstock.replay.requests import Request

LARGEST = 64 << 20  # bytes of an answer
SECONDS = 600.0  # without a byte


class Unreachable(Exception):
    """A server that gives no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """body: JSON, or text where it is none. events: of a stream, in place of a body."""

    status: int
    headers: Mapping[str, str]  # names in small letters
    body: Any = None
    events: tuple[Any, ...] | None = None


class Server:
    """Where requests go."""

    def __init__(self, url: str, headers: Mapping[str, str], seconds: float = SECONDS) -> None:
        """Raises ValueError for a URL that is none of HTTP."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"a server is a URL such as http://127.0.0.1:3000, not {url!r}")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": "application/json", **headers}
        self._seconds = seconds
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def model(self) -> str:
        """What it calls its model; some name, where it does not say."""
        answer = self.answer(Request("", "GET", "/v1/models"))
        try:
            return str(answer.body["data"][0]["id"])
        except (LookupError, TypeError):
            return "tgi"

    def answer(self, request: Request) -> Answer:
        """Of whatever status. Raises Unreachable."""
        data = None if request.body is None else json.dumps(request.body).encode()
        asked = urllib.request.Request(
            self.url + request.path, data, dict(self._headers), method=request.method
        )
        try:
            try:
                with self._opener.open(asked, timeout=self._seconds) as reply:
                    return _read(reply.status, reply.headers, reply.read(LARGEST + 1))
            except urllib.error.HTTPError as error:
                with error:
                    return _read(error.code, error.headers, error.read(LARGEST + 1))
        except OSError as error:
            raise Unreachable(f"{self.url}: {getattr(error, 'reason', error)}") from None
        except http.client.HTTPException as error:
            raise Unreachable(f"{self.url}: the answer broke off ({error!r})") from None


def _read(status: int, headers: Any, content: bytes) -> Answer:
    if len(content) > LARGEST:
        raise Unreachable(f"an answer has more than {LARGEST:,} bytes")
    names = {name.lower(): value for name, value in headers.items()}
    if names.get("content-type", "").startswith("text/event-stream"):
        return Answer(status, names, events=tuple(_events(content)))
    return Answer(status, names, _json(content))


def _events(content: bytes) -> list[Any]:
    """Comments, which keep connections open, are none."""
    lines = (line for line in content.splitlines() if line.startswith(b"data:"))
    return [_json(line[5:].strip()) for line in lines]


def _json(content: bytes) -> Any:
    text = content.decode(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
