"""The body of a request as JSON."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from penstock_router.api.bodies import BODY_BYTES, SMALL_BYTES
from penstock_router.api.body_shape import MOST_VALUES, fault_of, fault_of_levels
from penstock_router.api.errors import ApiError, Kind, invalid
from penstock_router.api.no_numbers import place_of_no_number
from penstock_router.api.service import SERVICE


async def read_json(request: web.Request) -> object:
    """The body of a request. Raises ApiError when it is late, too large or no JSON."""
    if request.content_type != "application/json" and not request.content_type.endswith("+json"):
        raise ApiError(Kind.MEDIA_TYPE, "Expected request with `Content-Type: application/json`")
    service = request.app[SERVICE]
    bodies = service.bodies
    data = await bodies.read(request)
    request[BODY_BYTES] = len(data)
    if len(data) > SMALL_BYTES:
        most = max(MOST_VALUES, service.engine.limits.max_input_tokens)
        fault = await asyncio.to_thread(fault_of, data, most)
    else:
        fault = fault_of_levels(data)
    if fault:
        raise invalid(f"the body must have {fault}")
    async with bodies.turn(len(data)):
        try:
            value: object = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise await _no_json(data, error) from None
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object")
    return value


async def _no_json(data: bytes, error: orjson.JSONDecodeError) -> ApiError:
    if (found := await asyncio.to_thread(place_of_no_number, data)) is not None:
        place, value = found
        return invalid(f"`{place}` must be a finite number: {value} was given, which is no JSON")
    return ApiError(Kind.BAD_REQUEST, f"The body is not valid JSON: {error}")
