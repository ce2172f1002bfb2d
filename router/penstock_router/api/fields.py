"""Fields that a request has and the server ignores: named in the answer's head and in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from penstock_router.api.bodies import BODY_BYTES, SHORT_BYTES
from penstock_router.api.errors import invalid
from penstock_router.api.request_id import request_id
from penstock_router.api.schema import M, Reading, parse
from penstock_router.api.service import REMEMBERED, SERVICE
from penstock_router.api.time_limit import narrow
from penstock_router.logs import log

T = TypeVar("T")
HEADER = "x-ignored-fields"

_KEY = web.RequestKey("reading", Reading)


async def checked(request: web.Request, model: type[M], body: object) -> M:
    """What a client sent, or a part of it, as an object of a schema. Raises ApiError."""
    service = request.app[SERVICE]
    reading = request.get(_KEY)
    if reading is None:
        reading = request[_KEY] = Reading(service.config.strict_requests)
    try:
        found = await worked(request, lambda: parse(model, body, reading))
    finally:
        _log_new(request, reading)
    narrow(request, found)
    return found


async def worked(request: web.Request, work: Callable[[], T]) -> T:
    """What is made of a body: on the event loop where the body is short."""
    if request.get(BODY_BYTES, 0) <= SHORT_BYTES:
        return work()
    return await request.app[SERVICE].bodies.aside(work)


def ignore(request: web.Request, name: str) -> None:
    """A field of a body that was checked turns out to have no effect. Raises ApiError where that
    is not allowed."""
    reading = request[_KEY]
    try:
        reading.ignore(name)
    except ValueError as error:
        raise invalid(str(error)) from None
    _log_new(request, reading)


def ignored_fields(request: web.Request) -> dict[str, str]:
    """The header of the answer, if there is anything to say."""
    reading = request.get(_KEY)
    return {HEADER: ", ".join(reading.ignored)} if reading and reading.ignored else {}


def sent_fields(request: web.Request) -> frozenset[str]:
    """The fields of a body that was checked, those among them that are null or ignored."""
    reading = request.get(_KEY)
    return reading.sent if reading else frozenset()


def _log_new(request: web.Request, reading: Reading) -> None:
    """Say each name once, as long as there are not too many to remember."""
    seen = request.app[SERVICE].logged
    for name in reading.ignored:
        if name not in seen and len(seen) < REMEMBERED:
            seen.add(name)
            log(
                "INFO",
                f"a field that clients send is unknown and ignored: {name}",
                target="penstock_router.api",
                request_id=request_id(request),
                route=request.path,
            )
