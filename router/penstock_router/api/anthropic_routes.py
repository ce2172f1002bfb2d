"""Anthropic's routes: /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from aiohttp import web

from penstock_router.api.anthropic_answer import MessageWording
from penstock_router.api.anthropic_schema import CountRequest, MessagesRequest
from penstock_router.api.converse import converse
from penstock_router.api.fields import checked, ignore, worked
from penstock_router.api.json_body import read_json
from penstock_router.api.options import Names
from penstock_router.api.prepare import listing_errors
from penstock_router.api.request_context import RequestContext
from penstock_router.api.service import SERVICE
from penstock_router.api.tgi_routes import json_response

NAMES = Names("messages", "max_tokens", openai=True)


async def messages(context: RequestContext) -> web.StreamResponse:
    """POST /v1/messages"""
    body = await context.body(MessagesRequest)
    chat, service = await worked(context.request, body.chat), context.service
    if chat.thinking_token_budget and not service.text.replies.dialect.counts_thoughts:
        chat = chat.model_copy(update={"thinking_token_budget": None})
        ignore(context.request, "thinking.budget_tokens")
    wording = MessageWording(service.model_name)
    return await converse(context, chat, body.grammar(), NAMES, wording)


async def count_tokens(request: web.Request) -> web.Response:
    """POST /v1/messages/count_tokens: how many tokens a conversation comes to."""
    service = request.app[SERVICE]
    body = await checked(request, CountRequest, await read_json(request))
    service.check_model(body.model)
    most = service.engine.limits.max_input_tokens
    chat = await worked(request, body.chat)
    conversation = chat.conversation(service.text.replies.shows_tools)
    with service.permits.take(1), listing_errors(most, "messages"):
        rendered = await service.text.render(conversation)
    return json_response({"input_tokens": len(rendered.ids)})
