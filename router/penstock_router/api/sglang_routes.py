"""SGLang's /generate, which shares its path with TGI's."""

from __future__ import annotations

import dataclasses
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, cast

from aiohttp import hdrs, web

from penstock_router.api import sglang_frontend, tgi_routes
from penstock_router.api.errors import ApiError, invalid
from penstock_router.api.fields import checked
from penstock_router.api.leaving_turns import written
from penstock_router.api.options import Options, check_token
from penstock_router.api.prepare import PromptInput, output, prepare, text_errors
from penstock_router.api.refusal import errors_as_of
from penstock_router.api.request_context import RequestContext
from penstock_router.api.scores import check_scores
from penstock_router.api.sglang_answer import (
    DONE,
    Generated,
    GeneratedStream,
    Wanted,
    error_event,
)
from penstock_router.api.sglang_chat import chat_of, plan_of, prompts_of, read_reply
from penstock_router.api.sglang_sampling import SamplingParams
from penstock_router.api.sglang_schema import DEFAULT_NEW_TOKENS, SGLangRequest, of_prompt
from penstock_router.api.sse import EventStream
from penstock_router.api.streaming import collect, end_with, stream_out
from penstock_router.api.tgi_routes import json_response
from penstock_router.api.tgi_schema import GenerateRequest
from penstock_router.request import GenerationRequest
from penstock_router.text import TextModel
from penstock_router.text.stop_pattern import StopPatterns

Planned = tuple[GenerationRequest, Options, Wanted]  # a sequence that is ready to run


async def generate(context: RequestContext) -> web.StreamResponse:
    """POST /generate: TGI's or SGLang's, which its fields tell."""
    body = cast(Mapping[str, object], await context.json())
    if "inputs" not in body and body.keys() & {"text", "input_ids", "sampling_params"}:
        errors_as_of(context.request, "/v1/")
        return await run_sglang(context, body)
    return await tgi_routes.run_generate(
        context, await checked(context.request, GenerateRequest, body)
    )


async def run_sglang(context: RequestContext, raw: Mapping[str, object]) -> web.StreamResponse:
    """One answer or a list of them, or a stream where the body asks for it."""
    body = await checked(context.request, SGLangRequest, raw)
    agent = context.request.headers.get(hdrs.USER_AGENT, "")
    planning = partial(_plan_in_turn, context, body, skips=sglang_frontend.selects(agent, raw))
    async with context.service.turns.waiting():
        if body.stream:
            return await _stream(context, body, planning())
        for_frontend = sglang_frontend.generates(agent, raw)
        return await _complete(context, body, await planning(), for_frontend)


async def _complete(
    context: RequestContext, body: SGLangRequest, planned: Sequence[Planned], for_frontend: bool
) -> web.StreamResponse:
    service = context.service
    listeners = [
        Generated(request, output(service, request, options), service.text, wanted)
        for request, options, wanted in planned
    ]
    await collect(context, listeners, service.turns.submitting)

    def show() -> web.Response:
        answers: list[dict[str, Any]] = [listener.shown() for listener in listeners]
        if body.batched or (len(answers) > 1 and not for_frontend):
            return json_response(answers, headers)
        if len(answers) == 1:
            return json_response(answers[0], headers)
        fields = ("text", "output_ids", "meta_info")
        return json_response({name: [a[name] for a in answers] for name in fields}, headers)

    headers = (
        context.early_headers(_characters(body))
        | context.succeed(listeners, _seed(planned)).headers()
    )
    return await written(sum(map(_scores, listeners)), show)


def _scores(listener: Generated) -> int:
    """Log-probabilities that an answer shows."""
    sampling = listener.request.sampling
    if not sampling.logprobs:
        return 0
    tokens = len(listener.request.prompt) + len(listener.ids)
    return tokens * (1 + sampling.top_n + len(sampling.given))


async def _stream(
    context: RequestContext, body: SGLangRequest, planning: Coroutine[Any, Any, list[Planned]]
) -> web.StreamResponse:
    service = context.service
    stream = EventStream(context.request, context.early_headers(_characters(body)))
    try:
        with context.limit.converting():
            planned = await stream.wait(planning)
    except ApiError as error:
        if not stream.started:
            raise
        return await end_with(context, stream, error, error_event)
    listeners = [
        GeneratedStream(request, output(service, request, options), service.text, wanted, stream)
        for request, options, wanted in planned
    ]
    return await stream_out(
        context,
        stream,
        listeners,
        seed=_seed(planned),
        last_events=lambda: DONE,
        error_event=error_event,
        submitting=service.turns.submitting,
    )


async def _plan_in_turn(
    context: RequestContext, body: SGLangRequest, *, skips: bool
) -> list[Planned]:
    with await context.service.turns.take():
        return await _plan(context, body, skips=skips)


async def _plan(context: RequestContext, body: SGLangRequest, *, skips: bool) -> list[Planned]:
    """Everything that will run, checked. skips: the entry that has no value is left out."""
    planned: list[Planned] = []
    text, chat = context.service.text, await chat_of(context.request, body)
    prompts: Sequence[PromptInput] = body.prompts
    if chat is not None and chat.messages:
        with text_errors():
            prompts = await prompts_of(chat, cast(Sequence[str], prompts), text)
    reading = chat is not None and bool(body.tools or body.separate_reasoning)
    plan = plan_of(chat, body, text)
    told: dict[int, Options] = {}
    asked: list[GenerationRequest] = []
    for index, prompt in enumerate(prompts):
        options = _options(context, body, index, told)
        if reading:  # markers are part of the text, which the program may send again
            options = dataclasses.replace(options, show_special=True)
        [requests] = await prepare(context, [prompt], dataclasses.replace(options, reply=plan))
        start = _start(body, index, len(requests[0].prompt))
        patterns = await _patterns(text, of_prompt(body.sampling_params, index))
        for sample, request in enumerate(requests):
            request = _completed(request, options, body, start, _name(context, body, index))
            place = len(planned)
            wanted = Wanted(
                id=request.name if len(requests) == 1 else f"{request.name}_{sample}",
                index=place if body.batched or len(requests) > 1 else None,
                prompt_ids=body.return_prompt_token_ids,
                logprobs=request.sampling.logprobs,
                start=None if start is None else start + skips,
                texts=body.return_text_in_logprobs,
                interval=of_prompt(body.sampling_params, index).stream_interval,
                read=partial(read_reply, plan, options, text) if reading else None,
                patterns=patterns,
                least=options.rules.min_tokens,
            )
            planned.append((request, options, wanted))
            asked.append(request)
        check_scores(asked, repeated=body.stream)
    return planned


async def _patterns(text: TextModel, parameters: SamplingParams) -> StopPatterns | None:
    """What ends an answer. Raises ApiError."""
    patterns = parameters.stop_patterns
    if not patterns:
        return None
    try:
        with text_errors():
            return await text.aside(lambda: StopPatterns(patterns))
    except ValueError as error:
        raise invalid(f"`sampling_params.stop_regex` {error}") from None


def _options(
    context: RequestContext, body: SGLangRequest, index: int, told: dict[int, Options]
) -> Options:
    """Of one prompt. told: what parameters come to, which prompts may share, by their identity.
    Raises ApiError."""
    service = context.service
    limits = service.engine.limits
    priority = context.priority() if body.priority is None else body.priority
    parameters = of_prompt(body.sampling_params, index)
    if id(parameters) not in told:
        options = parameters.options(service.config, prompt=body.field, priority=priority)
        told[id(parameters)] = dataclasses.replace(options, cache_salt=body.extra_key)
    options = told[id(parameters)]
    if of_prompt(body.return_logprob, index):
        given = body.given(index)
        for token in given:
            check_token(token, limits, "token_ids_logprob")
        top_n = of_prompt(body.top_logprobs_num, index)
        sampling = dataclasses.replace(options.sampling, logprobs=True, top_n=top_n, given=given)
        options = dataclasses.replace(options, sampling=sampling)
    options.check(limits)
    return options


def _start(body: SGLangRequest, index: int, length: int) -> int | None:
    """Where the entries of a prompt begin; None: there are none. Raises ApiError."""
    if not of_prompt(body.return_logprob, index):
        return None
    start: int = of_prompt(body.logprob_start_len, index)
    if start >= length:
        raise invalid(
            f"`logprob_start_len` must be below the number of prompt tokens, {length}. "
            f"Given: {start}"
        )
    if start >= 0:
        return start
    # A prompt that is scored and not continued would have no entries at all.
    return 0 if of_prompt(body.sampling_params, index).max_new_tokens == 0 else None


def _completed(
    request: GenerationRequest,
    options: Options,
    body: SGLangRequest,
    start: int | None,
    name: str,
) -> GenerationRequest:
    """With what only SGLang's requests have."""
    most = request.max_new_tokens
    if options.max_new_tokens is None:
        most = min(most, DEFAULT_NEW_TOKENS)
    return dataclasses.replace(
        request,
        max_new_tokens=most,
        prompt_logprobs=start is not None,
        prompt_logprobs_start=start or 0,
        prompt_top_n=request.sampling.top_n if start is not None else 0,
        name=name,
    )


def _name(context: RequestContext, body: SGLangRequest, index: int) -> str:
    """By which a prompt's sequences may be aborted, and what the answer calls it."""
    own = f"{context.id}_{index}" if body.batched else context.id
    return body.name(index) or own


def _characters(body: SGLangRequest) -> int:
    return sum(len(prompt) for prompt in body.prompts if isinstance(prompt, str))


def _seed(planned: Sequence[Planned]) -> int | None:
    request, options, _ = planned[0]
    return request.sampling.seed if options.samples else None
