"""The page at / and the one at /docs: static files, the same for everybody.

They hold nothing of the model or the server: their scripts ask the API, with the key that the
person at the browser enters. The policy lets a browser load nothing from elsewhere.
"""

from __future__ import annotations

import hashlib
import mimetypes
from importlib import resources

from aiohttp import hdrs, web

from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.info_routes import health

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    hdrs.CACHE_CONTROL: "no-cache",
    hdrs.VARY: "accept",
}


def _files() -> dict[str, tuple[bytes, str, str]]:
    """Name, and the bytes, type and tag of each file of the page."""
    mimetypes.add_type("text/javascript", ".js")
    found = {}
    for file in resources.files("penstock_router.page").iterdir():
        kind = mimetypes.guess_type(file.name)[0]
        if kind is not None and not file.name.endswith(".py"):
            data = file.read_bytes()
            found[file.name] = (data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found


_FILES = _files()


def _answer(request: web.Request, name: str) -> web.Response:
    if name not in _FILES:
        raise ApiError(Kind.NOT_FOUND, f"The page has no file {name}")
    data, kind, tag = _FILES[name]
    headers = {**_HEADERS, hdrs.ETAG: tag}
    if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, content_type=kind, charset="utf-8", headers=headers)


async def root(request: web.Request) -> web.Response:
    """GET /: the page for browsers, and for everybody else health, as with TGI."""
    if "text/html" in request.headers.get(hdrs.ACCEPT, ""):
        return _answer(request, "index.html")
    return await health(request)


async def docs(request: web.Request) -> web.Response:
    """GET /docs"""
    return _answer(request, "docs.html")


async def file(request: web.Request) -> web.Response:
    """GET /page/NAME"""
    return _answer(request, request.match_info["name"])
