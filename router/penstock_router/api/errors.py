"""Every error that a client can get: one table."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from aiohttp import web

from penstock_router.api.user_agents import reads_sentences
from penstock_router.instruments import Failure
from penstock_router.request import (
    BadGrammar,
    Draining,
    EngineError,
    GrammarsBusy,
    ShuttingDown,
)
from penstock_router.templates.errors import MissingVariable, TemplateError, TemplatesBusy


@dataclass(frozen=True, slots=True)
class Row:
    """How an error looks outside."""

    status: int
    error_type: str
    text: str
    failure: Failure = "validation"  # label of tgi_request_failure
    retry_after: int | None = None  # seconds
    code: str | None = None  # OpenAI's, which programs tell apart


class Kind(enum.Enum):
    """TGI's errors under its names, statuses and words, and those it lacked."""

    BAD_REQUEST = Row(400, "bad_request", "{}")
    UNAUTHORIZED = Row(401, "unauthorized", "The API key is missing or wrong")
    NOT_FOUND = Row(404, "not_found", "{}")
    NO_MODEL = Row(404, "not_found", "{}", code="model_not_found")
    METHOD = Row(405, "method_not_allowed", "{}")
    TIMEOUT = Row(408, "timeout", "The request did not arrive within {} seconds")
    TOO_LARGE = Row(413, "payload_too_large", "The request's body must be at most {} bytes")
    MEDIA_TYPE = Row(415, "unsupported_media_type", "{}")
    VALIDATION = Row(422, "validation", "Input validation error: {}")
    CONTEXT = Row(422, "validation", "Input validation error: {}", code="context_length_exceeded")
    TEMPLATE = Row(422, "template_error", "Template error: {}", "template")
    VARIABLE = Row(422, "missing_template_variable", "Missing template variable: {}", "template")
    GENERATION = Row(424, "generation", "Request failed during generation: {}", "generation")
    OVERLOADED = Row(429, "overloaded", "Model is overloaded", "overloaded", 1)
    TOO_MANY = Row(429, "overloaded", "{}", "overloaded", 1)
    RATE = Row(429, "rate_limit", "{}", "overloaded", code="rate_limit_exceeded")
    DEADLINE = Row(
        504, "deadline_exceeded", "The request was not done within {:g} seconds", "timeout"
    )
    INTERNAL = Row(500, "internal", "Internal error", "incomplete")
    INCOMPLETE = Row(500, "incomplete_generation", "Incomplete generation", "incomplete")
    UNHEALTHY = Row(503, "healthcheck", "unhealthy{}")
    DRAINING = Row(503, "shutting_down", "The server is shutting down", "overloaded", 5)


_ANTHROPIC = "/v1/messages"
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """A request ends here with an error of the table."""

    def __init__(self, kind: Kind, detail: object = "", headers: Mapping[str, str] = {}) -> None:
        super().__init__(kind.value.text.format(detail))
        self.sentence = str(detail) or str(self)  # without the words that its kind has in front
        self.kind = kind
        self.headers = headers

    @property
    def row(self) -> Row:
        return self.kind.value

    def body(self, path: str = "/", user_agent: str = "") -> dict[str, object]:
        """What the client reads.

        TGI's shape, in which `error` is the sentence. Under /v1 `error` is an object that holds
        it, because OpenAI's clients read a message from nowhere else; but not for those that
        `user_agents` knows. Anthropic's routes have Anthropic's. `error_type` is in all.
        """
        row = self.row
        if path.startswith(_ANTHROPIC):
            return anthropic_error(self)
        error: object = str(self)
        if path.startswith("/v1/") and not reads_sentences(user_agent):
            error = {
                "message": str(self),
                "type": row.error_type,
                "param": None,
                "code": row.code or row.status,
                "http_status_code": row.status,
            }
        return {"error": error, "error_type": row.error_type}

    def response(self, path: str, user_agent: str = "") -> web.Response:
        """The whole HTTP answer to a request for `path`."""
        headers = dict(self.headers)
        if self.row.retry_after is not None:
            headers["Retry-After"] = str(self.row.retry_after)
        return web.Response(
            status=self.row.status,
            body=orjson.dumps(self.body(path, user_agent)),
            content_type="application/json",
            headers=headers,
        )


def anthropic_error(error: ApiError) -> dict[str, object]:
    """What Anthropic's clients read."""
    row = error.row
    kind = _ANTHROPIC_TYPES.get(row.status, "api_error")
    shown = {"type": kind, "message": str(error)}
    return {"type": "error", "error": shown, "error_type": row.error_type}


def invalid(message: str) -> ApiError:
    """A request that breaks a rule; the message names field, rule and value."""
    return ApiError(Kind.VALIDATION, message)


def from_engine(error: EngineError, asked_by: str = "") -> ApiError:
    """The engine did not take a request, or did not finish it. asked_by: the field that a grammar
    is of."""
    match error:
        case BadGrammar():
            name = f"`{asked_by}`" if asked_by else "the grammar"
            return invalid(f"{name} cannot be used: {error}")
        case GrammarsBusy():
            return ApiError(Kind.TOO_MANY, f"Model is overloaded: {error}")
        case Draining():
            return ApiError(Kind.DRAINING)
        case ShuttingDown():
            return ApiError(Kind.INCOMPLETE)
    return ApiError(Kind.GENERATION, error)


def from_template(error: TemplateError) -> ApiError:
    """The chat template did not render."""
    kinds = {MissingVariable: Kind.VARIABLE, TemplatesBusy: Kind.OVERLOADED}
    return ApiError(kinds.get(type(error), Kind.TEMPLATE), error)
