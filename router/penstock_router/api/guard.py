"""What stands before every route: host, origin, key, size, and errors as answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection

from aiohttp import hdrs, web

from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.fields import ignored_fields
from penstock_router.api.keys import Keys
from penstock_router.api.quota import HEADER_NAMES, Ledger, leased, limit_headers
from penstock_router.api.refusal import refuse
from penstock_router.api.request_id import request_id

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# A host with an optional port; nothing that could be taken for a part of a path.
_HOST = re.compile(r"[A-Za-z0-9._~%:\[\]-]*")


# What a browser may be asked to let through: names of headers.
_HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~ ,-]{1,4096}")
_ALLOWED_HEADERS = "content-type,authorization,x-priority,x-request-id"
# Headers of answers that a page may read.
EXPOSED_HEADERS = ",".join(
    (
        "x-request-id",
        "x-ignored-fields",
        "retry-after",
        "x-compute-type",
        "x-compute-characters",
        "x-compute-time",
        "x-total-time",
        "x-validation-time",
        "x-queue-time",
        "x-inference-time",
        "x-time-per-token",
        "x-prompt-tokens",
        "x-cached-tokens",
        "x-generated-tokens",
        "retry-after-ms",
        *HEADER_NAMES,
    )
)


class Origins:
    """Which web pages may call: any, or those that the operator listed."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)

    def headers(self, request: web.Request) -> dict[str, str]:
        """What a browser needs to see on every answer."""
        headers: dict[str, str] = {}
        allowed: str | None = "*"
        if self._allowed and "*" not in self._allowed:
            origin = request.headers.get(hdrs.ORIGIN)
            allowed = origin if origin in self._allowed else None
            headers[hdrs.VARY] = "origin"
        if allowed is not None:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = allowed
            headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED_HEADERS
        return headers

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser that asks whether it may call.

        Any header may be sent: SDKs add some of their own (x-stainless-*, traceparent, …), and
        pages that may call at all gain nothing by it.
        """
        if request.method != "OPTIONS" or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
            return None
        wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
        return web.Response(
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET,POST,DELETE",
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: wanted
                if _HEADER_NAMES.fullmatch(wanted)
                else _ALLOWED_HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: "600",
            }
        )


def check_head(
    request: web.Request, payload_limit: int, uploads: Collection[tuple[str, str]] = ()
) -> None:
    """What can be refused before the body is read. Raises ApiError.

    uploads: method and path of routes that write bodies to the disk, within a bound of their own.
    """
    hosts = request.headers.getall(hdrs.HOST, [])
    if len(hosts) > 1 or not all(_HOST.fullmatch(host) for host in hosts):
        raise ApiError(Kind.BAD_REQUEST, "The Host header is not valid")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise ApiError(Kind.MEDIA_TYPE, "The request's body must not be compressed")
    if (request.content_length or 0) > payload_limit and not _is_one_of(request, uploads):
        raise ApiError(Kind.TOO_LARGE, payload_limit)


def _is_one_of(request: web.Request, routes: Collection[tuple[str, str]]) -> bool:
    resource = request.match_info.route.resource
    return resource is not None and (request.method, resource.canonical) in routes


def middleware(
    origins: Origins,
    keys: Keys,
    ledger: Ledger,
    payload_limit: int,
    uploads: Collection[tuple[str, str]] = (),
) -> Callable[..., object]:
    """One middleware around everything."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if (answer := origins.preflight(request)) is not None:
                return answer
            check_head(request, payload_limit, uploads)
            keys.check(request)
            async with leased(request, ledger):
                return await handler(request)
        except (ApiError, web.HTTPException) as error:
            return refuse(request, error)

    return guard


def finish_headers(
    origins: Origins,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Headers of every answer, streams included."""

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        response.headers[hdrs.SERVER] = "penstock"
        response.headers["x-request-id"] = request_id(request)
        response.headers.update(ignored_fields(request))
        response.headers.update(limit_headers(request))
        response.headers.update(origins.headers(request))

    return add
