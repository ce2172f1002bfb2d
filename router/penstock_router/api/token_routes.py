"""Texts as tokens and back: /tokenize in TGI's shape and in vLLM's, /detokenize in vLLM's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, NotRequired, cast

from aiohttp import web
from typing_extensions import TypedDict

from penstock_router.api import tgi_routes
from penstock_router.api.fields import checked
from penstock_router.api.json_body import read_json
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.options import check_token
from penstock_router.api.prepare import listing_errors, text_errors
from penstock_router.api.refusal import errors_as_of
from penstock_router.api.schema import ClientObject
from penstock_router.api.schema_types import TokenIds
from penstock_router.api.service import SERVICE, Service
from penstock_router.api.tgi_routes import json_response

MAX_TOKENS = 1 << 20  # of a call


class TokenizeRequest(ClientObject):
    """A prompt to be tokenised, as vLLM's server takes it."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool = True
    return_token_strs: bool = False


class TokenizeChatRequest(ChatRequest):
    """A conversation to be tokenised, as vLLM's server takes it."""

    # Control tokens are the template's, which writes those that begin a prompt too.
    IGNORED: ClassVar = ChatRequest.IGNORED | {"add_special_tokens"}

    return_token_strs: bool = False


class TokenizeResponse(TypedDict):
    """vLLM's answer."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: NotRequired[list[str | None] | None]


class DetokenizeRequest(ClientObject):
    """Body of /detokenize."""

    tokens: Annotated[Sequence[int], TokenIds(MAX_TOKENS)]
    model: str | None = None
    skip_special_tokens: bool = False


class DetokenizeResponse(TypedDict):
    """The text of all tokens, special ones by their names unless they are skipped."""

    prompt: str


async def tokenize(request: web.Request) -> web.Response:
    """POST /tokenize: `inputs` is TGI's, `prompt` and `messages` are vLLM's."""
    body = cast(Mapping[str, object], await read_json(request))
    if "inputs" not in body and body.keys() & {"prompt", "messages"}:
        errors_as_of(request, "/v1/")
        return await _tokenize(request, body)
    return await tgi_routes.run_tokenize(request, body)


async def _tokenize(request: web.Request, raw: Mapping[str, object]) -> web.Response:
    service = request.app[SERVICE]
    most = service.engine.limits.max_input_tokens
    if "messages" in raw:
        chat = await checked(request, TokenizeChatRequest, raw)
        service.check_model(chat.model)
        with service.permits.take(1), listing_errors(most, "messages"):
            rendered = await service.text.render(chat.conversation(), limit=most)
        return _shown(service, rendered.ids, chat.return_token_strs)
    body = await checked(request, TokenizeRequest, raw)
    service.check_model(body.model)
    with service.permits.take(1), listing_errors(most, "prompt"):
        ids = await service.text.encode(body.prompt, body.add_special_tokens, most)
    return _shown(service, ids, body.return_token_strs)


def _shown(service: Service, ids: Sequence[int], strings: bool) -> web.Response:
    spelling = service.text.tokenizer.spelling
    return json_response(
        {
            "count": len(ids),
            "max_model_len": service.engine.limits.max_total_tokens,
            "tokens": list(ids),
            "token_strs": [spelling(token) for token in ids] if strings else None,
        }
    )


async def detokenize(request: web.Request) -> web.Response:
    """POST /detokenize: the text of `tokens`."""
    errors_as_of(request, "/v1/")
    service = request.app[SERVICE]
    body = await checked(request, DetokenizeRequest, await read_json(request))
    service.check_model(body.model)
    check_token(max(body.tokens), service.engine.limits, "tokens")
    tokenizer = service.text.tokenizer
    with service.permits.take(1), text_errors():
        prompt = await service.text.run(
            lambda: tokenizer.decode(body.tokens, skip_special_tokens=body.skip_special_tokens)
        )
    return json_response({"prompt": prompt})
