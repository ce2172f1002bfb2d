"""OpenAI's routes: /v1/chat/completions, /v1/completions, and TGI's /chat_tokenize."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from penstock_router.api.echo import EchoedPrompt, echoed
from penstock_router.api.errors import invalid
from penstock_router.api.fields import checked, sent_fields
from penstock_router.api.json_body import read_json
from penstock_router.api.logprobs import ChatLogprobs, CompletionLogprobs, Logprobs
from penstock_router.api.openai_answer import FINISH_REASONS, Head, collected_logprobs, usage
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_completion import MAX_PROMPTS, CompletionRequest
from penstock_router.api.openai_reply import ReplyCollector, ReplyStream, answer_style
from penstock_router.api.openai_request import OpenAIRequest
from penstock_router.api.openai_stream import (
    CHAT,
    COMPLETION,
    DONE,
    FOLDED_CHAT,
    TYPED_CHAT,
    ChoiceStream,
    Extras,
    ScoredStream,
    Shape,
    error_event,
    last_events,
)
from penstock_router.api.options import Options
from penstock_router.api.prepare import Prompt, listing_errors, output, prepare, text_errors
from penstock_router.api.request_context import RequestContext
from penstock_router.api.scores import check_scores
from penstock_router.api.sequence_group import Collector
from penstock_router.api.service import SERVICE, Service
from penstock_router.api.sse import EventStream
from penstock_router.api.streaming import collect, stream_out
from penstock_router.api.tgi_routes import json_response
from penstock_router.api.user_agents import is_text_generation, reads_only_json
from penstock_router.api.vllm_extras import beside_choices, in_choice
from penstock_router.request import GenerationRequest
from penstock_router.text import Conversation, TextModel
from penstock_router.tools.plan import ReplyPlan


async def chat_completions(context: RequestContext) -> web.StreamResponse:
    """POST /v1/chat/completions"""
    return await run_chat(context, await context.body(ChatRequest))


async def completions(context: RequestContext) -> web.StreamResponse:
    """POST /v1/completions"""
    return await run_completion(context, await context.body(CompletionRequest))


async def run_chat(context: RequestContext, body: ChatRequest) -> web.StreamResponse:
    """An answer to a conversation."""
    conversation = body.conversation(context.service.text.replies.shows_tools)
    characters = sum(len(message["content"]) for message in conversation.messages)
    if body.stream:
        head = _head(context, body, "chat.completion.chunk", "chatcmpl")
        return await _stream(context, body, [conversation], head, _chat_shape(context), characters)
    head = _head(context, body, "chat.completion", "chatcmpl")
    return await _complete(context, body, [conversation], head, characters)


async def run_completion(context: RequestContext, body: CompletionRequest) -> web.StreamResponse:
    """Continuations of one or several prompts."""
    prompts = body.prompts
    most = max(MAX_PROMPTS, context.service.config.max_client_batch_size)
    if len(prompts) > most:
        raise invalid(
            f"Number of prompts exceeds the maximum allowed batch size of {most}. "
            f"Given: {len(prompts)}"
        )
    head = _head(context, body, "text_completion", "cmpl")
    characters = sum(len(prompt) for prompt in prompts if isinstance(prompt, str))
    if body.stream:
        return await _stream(context, body, prompts, head, COMPLETION, characters)
    return await _complete(context, body, prompts, head, characters)


async def chat_tokenize(request: web.Request) -> web.Response:
    """POST /chat_tokenize: a conversation as the template writes it, and its tokens."""
    service = request.app[SERVICE]
    body = await checked(request, ChatRequest, await read_json(request))
    most = service.engine.limits.max_input_tokens
    with service.permits.take(1), listing_errors(most, "messages"):
        conversation = body.conversation(service.text.replies.shows_tools)
        rendered = await service.text.render(conversation, with_spans=True, limit=most)
    tokens = orjson.Fragment(rendered.spans_json)
    return json_response({"tokenize_response": tokens, "templated_text": rendered.text})


async def _complete(
    context: RequestContext,
    body: OpenAIRequest,
    prompts: Sequence[Prompt],
    head: Head,
    characters: int,
) -> web.StreamResponse:
    service = context.service
    options = wanted_options(context, body)
    with service.permits.take(len(prompts) * options.sequences):
        requests, echoes = await _requests(context, body, prompts, options)
        keep = Collector if options.reply is None else ReplyCollector
        listeners = [keep(r, output(service, r, options)) for r in requests]
        await collect(context, listeners)
    best = _best(body, listeners, len(prompts))
    show = partial(_shown, service.text, body, best, echoes)
    # Log-probabilities of a long prompt take a moment.
    quick = body.top_n is None and body.prompt_logprobs is None
    shown = show() if quick else await asyncio.to_thread(show)
    figures = context.succeed(listeners, _seed(requests, options))
    headers = context.early_headers(characters) | figures.headers()
    answer = partial(json_response, head.fields() | shown | {"usage": usage(listeners)}, headers)
    return answer() if quick else await asyncio.to_thread(answer)


def _best(body: OpenAIRequest, listeners: Sequence[Collector], prompts: int) -> list[Collector]:
    """The sequences that are shown: of more than `n` a prompt, those with the highest mean."""
    if not isinstance(body, CompletionRequest) or body.candidates == body.n:
        return [*listeners]
    each = body.candidates
    groups = [listeners[first : first + each] for first in range(0, prompts * each, each)]
    ranked = [sorted(g, key=lambda listener: listener.mean_logprob, reverse=True) for g in groups]
    return [listener for group in ranked for listener in group[: body.n]]


async def _stream(
    context: RequestContext,
    body: OpenAIRequest,
    prompts: Sequence[Prompt],
    head: Head,
    shape: Shape,
    characters: int,
) -> web.StreamResponse:
    service = context.service
    options = wanted_options(context, body)
    with service.permits.take(len(prompts) * options.sequences):
        requests, echoes = await _requests(context, body, prompts, options)
        stream = EventStream(context.request, context.early_headers(characters))
        done = b"" if reads_only_json(context.user_agent, sent_fields(context.request)) else DONE
        scores = options.prompt_logprobs
        extras = Extras(body.include_usage, body.usage_in_chunks, body.return_token_ids)
        make = _listener(options, scores, body)
        listeners = [
            make(
                request,
                output(service, request, options),
                stream,
                head=head,
                shape=shape,
                index=index,
                logprobs=_logprobs(service.text, body, echo),
                echo=echo,
                extras=extras,
            )
            for index, (request, echo) in enumerate(zip(requests, echoes, strict=True))
        ]
        return await stream_out(
            context,
            stream,
            listeners,
            seed=_seed(requests, options),
            last_events=lambda: last_events(head, listeners, body.include_usage, done),
            error_event=error_event,
        )


def _head(context: RequestContext, body: OpenAIRequest, kind: str, prefix: str) -> Head:
    head = Head(kind, prefix, context.service.model_name)
    return head if body.request_id is None else dataclasses.replace(head, id=body.request_id)


def _listener(options: Options, scores: bool, body: OpenAIRequest) -> Callable[..., ChoiceStream]:
    """What streams a choice."""
    if options.reply is not None:
        assert isinstance(body, ChatRequest)
        return partial(ReplyStream, style=answer_style(body))
    return ScoredStream if scores else ChoiceStream


def _chat_shape(context: RequestContext) -> Shape:
    # The helpers of OpenAI's clients say by this header that they fold a stream.
    if "x-stainless-helper-method" in context.request.headers:
        return FOLDED_CHAT
    return (
        TYPED_CHAT if is_text_generation(context.user_agent, sent_fields(context.request)) else CHAT
    )


def wanted_options(context: RequestContext, body: OpenAIRequest) -> Options:
    """What a body asks for, in the server's terms. Raises ApiError."""
    service = context.service
    service.check_model(body.model)
    body = body.completed(service.sampling_defaults)
    options = body.options(service.config, priority=context.priority())
    options.check(service.engine.limits)
    if isinstance(body, ChatRequest):
        options = dataclasses.replace(options, reply=_reply_plan(service, body))
    return options


def _reply_plan(service: Service, body: ChatRequest) -> ReplyPlan | None:
    """How the answer is read. Raises ApiError for a budget that cannot be kept."""
    replies, budget = service.text.replies, body.thinking_token_budget
    if budget is not None and not replies.dialect.counts_thoughts:
        raise invalid(
            "`thinking_token_budget` cannot be kept: this model marks its reasoning by text, not "
            "by tokens"
        )
    if budget is not None and body.new_tokens is not None and budget >= body.new_tokens:
        budget = None  # the answer ends before
    return replies.plan(body.toolbox(), budget)


async def _requests(
    context: RequestContext, body: OpenAIRequest, prompts: Sequence[Prompt], options: Options
) -> tuple[list[GenerationRequest], list[EchoedPrompt | None]]:
    """One request a sequence, and what each repeats of its prompt."""
    requests: list[GenerationRequest] = []
    echoes: list[EchoedPrompt | None] = []
    special = not isinstance(body, CompletionRequest) or body.add_special_tokens
    admitted = await prepare(context, prompts, options, special)
    for prompt, own in zip(prompts, admitted, strict=True):
        echo = None
        if isinstance(body, ChatRequest) and (repeated := body.echoed):
            echo = EchoedPrompt(repeated, ())
        if (
            isinstance(body, CompletionRequest)
            and body.echo
            and not isinstance(prompt, Conversation)
        ):
            with text_errors():
                echo = await echoed(context.service.text, prompt, own[0].prompt)
        requests += own
        echoes += [echo] * body.n
    check_scores(requests)
    return requests, echoes


def _shown(
    text: TextModel,
    body: OpenAIRequest,
    listeners: Sequence[Collector],
    echoes: Sequence[EchoedPrompt | None],
) -> dict[str, Any]:
    """The choices of an answer that is sent at once, and what stands beside them."""
    choices = []
    for index, (listener, echo) in enumerate(zip(listeners, echoes, strict=True)):
        source = _logprobs(text, body, echo)
        content = listener.text if echo is None else echo.text + listener.text
        shown: dict[str, Any] = {"text": content}
        finish_reason = FINISH_REASONS[listener.end.reason]
        if isinstance(body, ChatRequest):
            shown = {"message": {"role": "assistant", "content": content}}
        if isinstance(listener, ReplyCollector):
            assert isinstance(body, ChatRequest)
            style = answer_style(body)
            shown = {"message": style.message(listener.reply)}
            finish_reason = style.finish_reason(finish_reason, bool(listener.reply.calls))
            if echo is not None:
                shown["message"]["content"] = echo.text + (shown["message"]["content"] or "")
        choices.append(
            {
                "index": index,
                **shown,
                "logprobs": source and collected_logprobs(listener, source, echo),
                "finish_reason": finish_reason,
                **in_choice(text, body, listener),
            }
        )
    return {"choices": choices, **beside_choices(text, body, listeners)}


def _logprobs(text: TextModel, body: OpenAIRequest, echo: EchoedPrompt | None) -> Logprobs | None:
    if body.top_n is None:
        return None
    by_id = body.return_tokens_as_token_ids
    if isinstance(body, ChatRequest):
        return ChatLogprobs(text, by_id)
    if echo is None:
        return CompletionLogprobs(text, by_id=by_id)
    # Then there is an entry for every token: scorers count from the end.
    return CompletionLogprobs(text, len(echo.text), everything=True, by_id=by_id)


def _seed(requests: Sequence[GenerationRequest], options: Options) -> int | None:
    return requests[0].sampling.seed if options.samples else None
