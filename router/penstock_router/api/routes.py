"""The table of all routes: what answers, what it takes and gives, and who may ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from penstock_router.api import (
    anthropic_routes,
    gateway_routes,
    info_routes,
    openai_routes,
    page_routes,
    probes,
    responses_routes,
    sglang_control_routes,
    sglang_routes,
    tgi_routes,
    token_routes,
)
from penstock_router.api.anthropic_schema import CountRequest, MessagesRequest
from penstock_router.api.openai_answer import ChatCompletion, Completion
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_completion import CompletionRequest
from penstock_router.api.request_context import generating, logged
from penstock_router.api.responses_schema import ResponsesRequest
from penstock_router.api.sglang_answer import SGLangResponse
from penstock_router.api.sglang_schema import AbortRequest, AppendRequest, SGLangRequest
from penstock_router.api.tgi_answer import GenerateResponse, StreamResponse
from penstock_router.api.tgi_schema import GenerateRequest, VertexRequest
from penstock_router.api.token_routes import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizeRequest,
    TokenizeResponse,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and path. Without `public` the API key is needed.

    body, answer, event: types of what comes and goes as JSON; an answer of str is plain text.
    form: the type of a body that is a form.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: Any = None
    answer: Any = None
    event: Any = None  # of a stream
    public: bool = False
    form: Any = None


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
        generating(sglang_routes.generate),
        "Generate and answer at once, or stream where `stream` is true; TGI's body or SGLang's",
        GenerateRequest | SGLangRequest,
        GenerateResponse | SGLangResponse | list[SGLangResponse],
        StreamResponse | SGLangResponse,
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
        "/v1/responses",
        generating(responses_routes.responses),
        "Answer a conversation, as OpenAI's newer API does; nothing is kept",
        ResponsesRequest,
        dict[str, Any],
        dict[str, Any],
    ),
    Route(
        "POST",
        "/v1/messages",
        generating(anthropic_routes.messages),
        "Answer a conversation, as Anthropic's API does",
        MessagesRequest,
        dict[str, Any],
        dict[str, Any],
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        logged(anthropic_routes.count_tokens),
        "How many tokens a conversation comes to, as Anthropic's API says it",
        CountRequest,
        dict[str, int],
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
        logged(token_routes.tokenize),
        "The tokens of `inputs`, in TGI's shape, or of `prompt` or `messages`, in vLLM's",
        GenerateRequest | TokenizeRequest | TokenizeChatRequest,
        list[dict[str, Any]] | TokenizeResponse,
    ),
    Route(
        "POST",
        "/detokenize",
        logged(token_routes.detokenize),
        "The text of `tokens`",
        DetokenizeRequest,
        DetokenizeResponse,
    ),
    Route(
        "POST",
        "/chat_tokenize",
        logged(openai_routes.chat_tokenize),
        "A conversation as the chat template writes it, and its tokens",
        ChatRequest,
        dict[str, Any],
    ),
    *(
        Route("GET", path, sglang_control_routes.model_info, "The model", answer=dict[str, Any])
        for path in ("/model_info", "/get_model_info")
    ),
    *(
        Route("GET", path, sglang_control_routes.server_info, "Limits", answer=dict[str, Any])
        for path in ("/server_info", "/get_server_info")
    ),
    *(
        Route(
            method,
            path,
            logged(sglang_control_routes.flush_cache),
            "Empty the prefix cache; not while anything runs",
            answer=str,
        )
        for method, path in (
            ("GET", "/flush_cache"),
            ("POST", "/flush_cache"),
            ("POST", "/reset_prefix_cache"),
        )
    ),
    Route(
        "POST",
        "/abort_request",
        logged(sglang_control_routes.abort_request),
        "End the sequences of a `rid`, or all",
        AbortRequest,
    ),
    Route(
        "POST",
        "/concate_and_append_request",
        logged(sglang_control_routes.append_request),
        "Nothing: prefixes are shared without it",
        AppendRequest,
    ),
    Route("GET", "/health_generate", sglang_control_routes.health_generate, "Health, by a token"),
    Route("GET", "/info", info_routes.info, "The model and the limits", answer=dict[str, Any]),
    Route("GET", "/version", info_routes.version, "Of Penstock", answer=dict[str, str]),
    Route("GET", "/load", info_routes.load, "Sequences in the server", answer=dict[str, int]),
    Route("GET", "/v1/models", info_routes.models, "The models", answer=dict[str, Any]),
    Route("GET", "/v1/models/{id:.+}", info_routes.model, "A model", answer=dict[str, Any]),
    Route("GET", "/", page_routes.root, "Health; for browsers a page", public=True),
    Route("GET", "/health", info_routes.health, "Health", public=True),
    Route("GET", "/ping", info_routes.health, "Health", public=True),
    Route("GET", "/startup", probes.startup, "Whether the start is over", public=True),
    Route("GET", "/live", probes.live, "Whether the process runs", public=True),
    Route("GET", "/ready", probes.ready, "Whether requests should be sent here", public=True),
    Route("GET", "/metrics", info_routes.metrics, "Prometheus metrics", answer=str, public=True),
)
