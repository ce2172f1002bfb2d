"""Sends one request of a batch until it is answered: waits out a server that is busy or away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from penstock.batches.requests import BatchRequest

LARGEST_ANSWER = 256 << 20  # bytes
CONNECT_SECONDS = 30.0
LONGEST_PAUSE = 30.0  # seconds between two tries
# Another try may have another answer: 408, 425, 429 and what gateways and restarts say.
PASSING = (408, 425, 429, 500, 502, 503, 504)
NOT_ALLOWED = (401, 403)


class Unreachable(Exception):
    """The server cannot be reached, or lets nobody in: the batch cannot go on now."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    request_id: str
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where requests go, and how long they are tried."""

    url: str  # without /v1
    headers: Mapping[str, str]
    tries: int = 8
    seconds: float = 3600.0  # for one answer
    first_pause: float = 0.5


async def check_reachable(server: Server) -> None:
    """Raises Unreachable where nobody listens. What goes away later is waited for; an address that
    is wrong from the start is better known at once."""
    timeout = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(server.url + "/health", headers=server.headers),
        ):
            pass
    except aiohttp.ClientConnectorError as error:
        raise _unreachable(server, error) from error
    except (ValueError, aiohttp.NonHttpUrlClientError) as error:
        raise Unreachable(f"{server.url!r} is no address of a server") from error
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass  # something is there


async def send(session: aiohttp.ClientSession, server: Server, request: BatchRequest) -> Answer:
    """The answer, of whatever status. Raises Unreachable when no try had one."""
    for attempt in range(server.tries):
        last = attempt + 1 == server.tries
        asked_pause = 0.0
        try:
            answer, asked_pause = await _send_once(session, server, request)
            if answer.status in NOT_ALLOWED:
                raise Unreachable(f"{server.url} answers {answer.status}: {_sentence(answer.body)}")
            if last or answer.status not in PASSING:
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if last:
                raise _unreachable(server, error) from error
        pause = min(server.first_pause * 2**attempt, LONGEST_PAUSE)
        await asyncio.sleep(max(pause * random.uniform(0.5, 1.0), min(asked_pause, LONGEST_PAUSE)))
    raise AssertionError("the last try returns or raises")


def _unreachable(server: Server, error: Exception) -> Unreachable:
    """In words, where the library has none but its own names."""
    reason = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    said = str(reason) or type(error).__name__
    return Unreachable(f"{server.url} cannot be reached: {said}")


async def _send_once(
    session: aiohttp.ClientSession, server: Server, request: BatchRequest
) -> tuple[Answer, float]:
    """An answer, and how many seconds the server asks to wait."""
    timeout = aiohttp.ClientTimeout(total=server.seconds, sock_connect=CONNECT_SECONDS)
    async with session.post(
        server.url + request.url,
        data=orjson.dumps(request.body),
        headers={"Content-Type": "application/json", **server.headers},
        timeout=timeout,
    ) as response:
        parts, size = [], 0
        async for part in response.content.iter_chunked(1 << 16):
            parts.append(part)
            size += len(part)
            if size > LARGEST_ANSWER:
                raise aiohttp.ClientPayloadError(
                    f"an answer has more than {LARGEST_ANSWER:,} bytes"
                )
        content = b"".join(parts)
        try:
            body: Any = orjson.loads(content)
        except orjson.JSONDecodeError:
            body = content[:10_000].decode(errors="replace")
        try:
            pause = float(response.headers.get("Retry-After", 0))
        except ValueError:  # a date
            pause = 0.0
        return Answer(response.status, response.headers.get("x-request-id", ""), body), pause


def _sentence(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else body
    return str(error.get("message") if isinstance(error, dict) else error)[:500]
