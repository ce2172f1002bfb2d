"""OpenAI's /v1/responses. Nothing is kept: the whole conversation comes with each request."""

from __future__ import annotations

from aiohttp import web

from penstock_router.api.converse import converse
from penstock_router.api.fields import worked
from penstock_router.api.options import Names
from penstock_router.api.request_context import RequestContext
from penstock_router.api.responses_answer import ResponseWording
from penstock_router.api.responses_schema import ResponsesRequest

NAMES = Names("input", "max_output_tokens", openai=True)


async def responses(context: RequestContext) -> web.StreamResponse:
    """POST /v1/responses"""
    body = await context.body(ResponsesRequest)
    chat = await worked(context.request, body.chat)
    used = chat.completed(context.service.sampling_defaults)
    sampling = {
        "temperature": 1.0 if used.temperature is None else used.temperature,
        "top_p": 1.0 if used.top_p is None else used.top_p,
    }
    wording = ResponseWording(body, context.service.model_name, sampling)
    return await converse(
        context, chat, body.grammar(), NAMES, wording, shortens=body.truncation == "auto"
    )
