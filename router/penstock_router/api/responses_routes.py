"""OpenAI's /v1/responses. Nothing is kept: the whole conversation comes with each request."""

from __future__ import annotations

from aiohttp import web

from penstock_router.api.call import Call
from penstock_router.api.converse import converse
from penstock_router.api.options import Names
from penstock_router.api.responses_answer import ResponseWording
from penstock_router.api.responses_schema import ResponsesRequest

NAMES = Names("input", "max_output_tokens", openai=True)


async def responses(call: Call) -> web.StreamResponse:
    """POST /v1/responses"""
    body = await call.body(ResponsesRequest)
    chat = body.chat()
    used = chat.completed(call.service.sampling_defaults)
    sampling = {
        "temperature": 1.0 if used.temperature is None else used.temperature,
        "top_p": 1.0 if used.top_p is None else used.top_p,
    }
    wording = ResponseWording(body, call.service.model_name, sampling)
    return await converse(call, chat, NAMES, wording)
