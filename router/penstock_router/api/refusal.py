"""An error as an answer, and as a line in the log."""

from __future__ import annotations

from aiohttp import hdrs, web

from penstock_router.api.absent_routes import why_absent
from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.quota import named
from penstock_router.api.request_id import request_id
from penstock_router.logs import log

TARGET = "penstock_router.api"
LONGEST_REASON = 500  # characters in the log

_LOGGED = web.RequestKey("logged", bool)
_PROTOCOL = web.RequestKey("protocol", str)


def errors_as_of(request: web.Request, path: str) -> None:
    """Let errors of a request look as those of another path do, whose protocol its body has."""
    request[_PROTOCOL] = path


def refuse(request: web.BaseRequest, error: ApiError | web.HTTPException) -> web.Response:
    """The answer to a request that ends with an error; logged unless that was done."""
    assert isinstance(request, web.Request)
    error = _translate(error, request.path)
    if not request.get(_LOGGED):
        log_failure(request, error)
    path = request.get(_PROTOCOL, request.path)
    return error.response(path, request.headers.get(hdrs.USER_AGENT, ""))


def log_failure(request: web.Request, error: ApiError) -> None:
    """One line: which request, and why. The sentences of errors hold no values of clients."""
    request[_LOGGED] = True
    row = error.row
    log(
        "ERROR" if row.status in (424, 500) else "INFO",
        "Failure",
        target=TARGET,
        request_id=request_id(request),
        method=request.method,
        route=request.path,
        **named(request),
        status=row.status,
        error_type=row.error_type,
        reason=str(error)[:LONGEST_REASON],
    )


def _translate(error: ApiError | web.HTTPException, path: str) -> ApiError:
    """aiohttp's own refusals in our words."""
    match error:
        case ApiError():
            return error
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return ApiError(
                Kind.METHOD, f"This path answers to {allowed} only", {hdrs.ALLOW: allowed}
            )
        case web.HTTPNotFound():
            return ApiError(Kind.NOT_FOUND, why_absent(path))
    return ApiError(Kind.BAD_REQUEST, error.reason)
