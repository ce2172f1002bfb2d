"""The name of a request, for logs of both sides."""

from __future__ import annotations

import re
import secrets

from aiohttp import web

_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KEY = web.RequestKey("request_id", str)


def request_id(request: web.Request) -> str:
    """The client's `x-request-id` if it is harmless in a log, else one of our own."""
    known = request.get(_KEY)
    if known is None:
        given = request.headers.get("x-request-id", "")
        known = given if _PATTERN.fullmatch(given) else secrets.token_hex(16)
        request[_KEY] = known
    return known
