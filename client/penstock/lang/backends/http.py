"""HTTP for threads: connections that are kept, JSON, and streams of events.

The standard library's client is enough for that, and brings nothing along.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import urlsplit

from penstock.lang.backend import BackendError

TRIES = 8  # of a request that the server is too busy for
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between them
BUSY = 429


class Connections:
    """Those to one server. A thread takes an idle one, or makes one."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout: float,
        verify: bool | str | None = None,
    ) -> None:
        """timeout: seconds without a byte. verify: False trusts any certificate; a path names
        those to trust. Raises ValueError for a URL that is none of HTTP."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"`base_url` must be a URL as http://host:port. Given: {url!r}")
        self.url = url.rstrip("/")
        self._path = parts.path.rstrip("/")
        self._address = (parts.hostname, parts.port)
        self._timeout = timeout
        self._tls = _tls(verify) if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json", **headers}
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def ask(self, path: str, body: Any = None, method: str = "POST") -> Any:
        """The JSON of an answer, or its text where it is none. Raises BackendError."""
        connection, answer = self._answered(path, body, method)
        content = self._read(connection, answer)
        try:
            return json.loads(content)
        except ValueError:
            return content.decode(errors="replace")

    def events(self, path: str, body: Any) -> Generator[Any]:
        """The JSON of each event up to `[DONE]`. Closing it closes the connection, which ends what
        the server does. Raises BackendError, also for an event that is an error."""
        connection, answer = self._answered(path, body, "POST")
        try:
            for line in answer:
                if not line.startswith(b"data:"):
                    continue
                if (data := line[5:].strip()) == b"[DONE]":
                    break
                event = json.loads(data)
                if isinstance(event, dict) and "error" in event:
                    raise BackendError(_sentence(event), _code(event))
                yield event
            else:
                raise BackendError(f"{self.url}{path}: the stream ended before its end")
            self._read(connection, answer)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            if not answer.isclosed():
                connection.close()

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _answered(
        self, path: str, body: Any, method: str
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """An answer with status 200, to be read."""
        data = None if body is None else json.dumps(body).encode()
        wait = FIRST_WAIT
        for tries in range(1, TRIES + 1):
            connection, answer = self._sent(method, path, data)
            if answer.status == 200:
                return connection, answer
            content = self._read(connection, answer)
            if answer.status != BUSY or tries == TRIES:
                raise BackendError(_refusal(content, answer.status), answer.status)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        raise AssertionError

    def _sent(
        self, method: str, path: str, data: bytes | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A server may have closed an idle connection meanwhile: then a new one is made."""
        while True:
            with self._lock:
                idle = self._idle.pop() if self._idle else None
            connection = idle or self._connection()
            try:
                connection.request(method, self._path + path, data, self._headers)
                return connection, connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if idle is None or isinstance(error, TimeoutError):
                    raise self._unreachable(error) from error

    def _read(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse
    ) -> bytes:
        try:
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        with self._lock:
            self._idle.append(connection)
        return content

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def _unreachable(self, error: Exception) -> BackendError:
        if isinstance(error, TimeoutError):
            return BackendError(f"{self.url} has said nothing for {self._timeout:g} s")
        return BackendError(f"{self.url} cannot be reached: {error or type(error).__name__}")


def _tls(verify: bool | str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _refusal(content: bytes, status: int) -> str:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if isinstance(body, dict):
        return _sentence(body)
    return f"status {status}: {content[:500].decode(errors='replace')}"


def _sentence(body: Mapping[str, Any]) -> str:
    """What an error says, in the shapes that there are."""
    error = body.get("error", body.get("message", body.get("detail", body)))
    if isinstance(error, Mapping):
        error = error.get("message", error)
    return str(error)


def _code(body: Mapping[str, Any]) -> int | None:
    error = body["error"]
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) else None
