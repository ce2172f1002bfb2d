"""The table of all routes: what answers, what it takes and gives, and who may ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from penstock_router.api import gateway_routes, info_routes, openai_routes, probes, tgi_routes
from penstock_router.api.call import generating, logged
from penstock_router.api.openai_answer import ChatCompletion, Completion
from penstock_router.api.openai_schema import ChatRequest, CompletionRequest
from penstock_router.api.tgi_answer import GenerateResponse, StreamResponse
from penstock_router.api.tgi_schema import GenerateRequest, VertexRequest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and path. Without `public` the API key is needed.

    body, answer, event: types of what comes and goes as JSON; an answer of str is plain text.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: Any = None
    answer: Any = None
    event: Any = None  # of a stream
    public: bool = False


ROUTES = (
    Route(
        "POST",
        "/",
        generating(tgi_routes.compat),
        "Generate; `stream` chooses between a list with one answer and a stream",
        GenerateRequest,
        list[GenerateResponse],
        StreamResponse,
    ),
    Route(
        "POST",
        "/generate",
        generating(tgi_routes.generate),
        "Generate and answer at once, or stream where `stream` is true",
        GenerateRequest,
        GenerateResponse,
        StreamResponse,
    ),
    Route(
        "POST",
        "/generate_stream",
        generating(tgi_routes.generate_stream),
        "Generate and stream the tokens",
        GenerateRequest,
        event=StreamResponse,
    ),
    Route(
        "POST",
        "/v1/chat/completions",
        generating(openai_routes.chat_completions),
        "Answer a conversation, as OpenAI's API does",
        ChatRequest,
        ChatCompletion,
        dict[str, Any],
    ),
    Route(
        "POST",
        "/v1/completions",
        generating(openai_routes.completions),
        "Continue prompts, as OpenAI's API does",
        CompletionRequest,
        Completion,
        dict[str, Any],
    ),
    Route(
        "POST",
        "/invocations",
        generating(gateway_routes.invocations),
        "SageMaker: the body of /, /v1/chat/completions or /v1/completions",
        GenerateRequest | ChatRequest | CompletionRequest,
        list[GenerateResponse] | ChatCompletion | Completion,
        StreamResponse | dict[str, Any],
    ),
    Route(
        "POST",
        "/vertex",
        generating(gateway_routes.vertex),
        "Vertex AI: several requests at once",
        VertexRequest,
        dict[str, list[str]],
    ),
    Route(
        "POST",
        "/tokenize",
        logged(tgi_routes.tokenize),
        "The tokens of `inputs`",
        GenerateRequest,
        list[dict[str, Any]],
    ),
    Route(
        "POST",
        "/chat_tokenize",
        logged(openai_routes.chat_tokenize),
        "A conversation as the chat template writes it, and its tokens",
        ChatRequest,
        dict[str, Any],
    ),
    Route("GET", "/info", info_routes.info, "The model and the limits", answer=dict[str, Any]),
    Route("GET", "/v1/models", info_routes.models, "The models", answer=dict[str, Any]),
    Route("GET", "/v1/models/{id:.+}", info_routes.model, "A model", answer=dict[str, Any]),
    Route("GET", "/", info_routes.health, "Health", public=True),
    Route("GET", "/health", info_routes.health, "Health", public=True),
    Route("GET", "/ping", info_routes.health, "Health", public=True),
    Route("GET", "/startup", probes.startup, "Whether the start is over", public=True),
    Route("GET", "/live", probes.live, "Whether the process runs", public=True),
    Route("GET", "/ready", probes.ready, "Whether requests should be sent here", public=True),
    Route("GET", "/metrics", info_routes.metrics, "Prometheus metrics", answer=str, public=True),
)
