"""Answers a conversation whose protocol is not OpenAI's chat, but says the same in other words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from penstock_router.api.blocks import AnswerWriter, BlockStream
from penstock_router.api.logprobs import ChatLogprobs
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_routes import wanted_options
from penstock_router.api.options import Names
from penstock_router.api.prepare import output, prepare
from penstock_router.api.request_context import RequestContext
from penstock_router.api.sse import EventStream
from penstock_router.api.streaming import collect, stream_out
from penstock_router.api.structured import Asked
from penstock_router.api.tgi_routes import json_response
from penstock_router.api.truncation import prepare_shortened
from penstock_router.request import GenerationRequest


class Wording(Protocol):
    """How one protocol says an answer."""

    def whole(self, listener: BlockStream) -> dict[str, Any]:
        """All of it at once."""

    def writer(self, request: GenerationRequest, push: Callable[[bytes], None]) -> AnswerWriter:
        """Bit by bit."""


async def converse(
    context: RequestContext,
    chat: ChatRequest,
    grammar: Asked | None,
    names: Names,
    wording: Wording,
    shortens: bool = False,
) -> web.StreamResponse:
    """chat: the request in the terms of OpenAI's chat, without the grammar that the answer is held
    to. names: what the client calls fields. shortens: a conversation that does not fit loses its
    beginning."""
    service = context.service
    options = dataclasses.replace(wanted_options(context, chat), names=names, grammar=grammar)
    conversation = chat.conversation(service.text.replies.shows_tools)
    headers = context.early_headers(sum(len(m.get("content") or "") for m in conversation.messages))
    with service.permits.take(1):
        if shortens:
            [[request]] = await prepare_shortened(context, conversation, options)
        else:
            [[request]] = await prepare(context, [conversation], options)
        shown = output(service, request, options)
        logprobs = ChatLogprobs(service.text) if chat.logprobs else None
        seed = request.sampling.seed if options.samples else None
        if not chat.stream:
            listener = BlockStream(request, shown, logprobs)
            await collect(context, [listener])
            figures = context.succeed([listener], seed)
            return json_response(wording.whole(listener), headers | figures.headers())
        stream = EventStream(context.request, headers)
        writer = wording.writer(request, stream.push)
        return await stream_out(
            context,
            stream,
            [BlockStream(request, shown, logprobs, writer)],
            seed=seed,
            last_events=lambda: b"",
            error_event=writer.error_event,
        )
