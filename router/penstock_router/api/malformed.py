"""What is said to a client whose request is no HTTP, or is never read."""

from __future__ import annotations

import http
from typing import cast

from aiohttp.http_exceptions import (
    BadHttpMethod,
    BadStatusLine,
    HttpProcessingError,
    InvalidHeader,
    InvalidURLError,
    LineTooLong,
)

from penstock_router.api.errors import ApiError

# What may be said of a head that is no HTTP: its values may be secrets.
_MALFORMED: tuple[tuple[type[BaseException], str], ...] = (
    (LineTooLong, "A line of the request's head is too long"),
    (InvalidHeader, "A header of the request is not valid"),
    (InvalidURLError, "The request's target is not valid"),
    (BadHttpMethod, "The request is no HTTP"),
    (BadStatusLine, "The request line is not valid"),
)


def describe(error: HttpProcessingError) -> str:
    """What is wrong with a head, in a sentence without anything of it."""
    for kind, sentence in _MALFORMED:
        if isinstance(error, kind):
            return sentence
    # llhttp's reason, or aiohttp's; what the client sent comes in the lines behind it.
    reason = error.message.partition("\n")[0].rstrip(" .:")
    return f"The request is not valid HTTP: {reason}"


def raw_answer(error: ApiError) -> bytes:
    """An answer to a client whose request was never read."""
    response = error.response("/")
    body = cast(bytes, response.body)
    phrase = http.HTTPStatus(response.status).phrase
    head = [f"HTTP/1.1 {response.status} {phrase}", "Server: penstock", "Connection: close"]
    head += [f"{name}: {value}" for name, value in response.headers.items()]
    head += [f"Content-Length: {len(body)}"]
    return "\r\n".join((*head, "", "")).encode() + body
