"""TGI's own routes: /, /generate, /generate_stream, /tokenize, /vertex."""

from __future__ import annotations

import orjson
from aiohttp import web

from penstock_router.api.fields import checked
from penstock_router.api.leaving_turns import written
from penstock_router.api.options import Options
from penstock_router.api.prepare import listing_errors, output, prepare
from penstock_router.api.request_context import RequestContext
from penstock_router.api.sequence_group import Collector
from penstock_router.api.service import SERVICE
from penstock_router.api.sse import EventStream
from penstock_router.api.streaming import collect, stream_out
from penstock_router.api.tgi_answer import (
    GenerateStream,
    answer,
    entries,
    error_event,
)
from penstock_router.api.tgi_schema import GenerateRequest


def json_response(value: object, headers: dict[str, str] | None = None) -> web.Response:
    """An answer with a JSON body."""
    return web.Response(
        body=orjson.dumps(value), content_type="application/json", headers=headers or {}
    )


async def generate_stream(context: RequestContext) -> web.StreamResponse:
    """POST /generate_stream"""
    body = await context.body(GenerateRequest)
    return await _stream(context, body, full_text=bool(body.parameters.return_full_text))


async def compat(context: RequestContext) -> web.StreamResponse:
    """POST /: `stream` decides, the answer is a list of one, the prompt is part of the text."""
    return await run_compat(context, await context.body(GenerateRequest))


async def run_generate(context: RequestContext, body: GenerateRequest) -> web.StreamResponse:
    """One answer, or a stream where the body asks for it."""
    full_text = bool(body.parameters.return_full_text)
    if body.stream:
        return await _stream(context, body, full_text)
    return await _complete(context, body, full_text, listed=False)


async def run_compat(context: RequestContext, body: GenerateRequest) -> web.StreamResponse:
    """As `run_generate`, with the defaults and the shape of POST /."""
    full_text = body.parameters.return_full_text is not False
    if body.stream:
        return await _stream(context, body, full_text)
    return await _complete(context, body, full_text, listed=True)


async def _complete(
    context: RequestContext, body: GenerateRequest, full_text: bool, listed: bool
) -> web.Response:
    """Generate to the end. listed: the answer is a list of one."""
    service, parameters = context.service, body.parameters
    options = _options(context, body, stream=False)
    with service.permits.take(options.sequences):
        [requests] = await prepare(context, [body.inputs], options, body.add_special_tokens)
        listeners = [Collector(r, output(service, r, options)) for r in requests]
        await collect(context, listeners)
    details = parameters.details or parameters.decoder_input_details
    prefix = body.inputs if full_text else ""
    seed = requests[0].sampling.seed if options.samples else None
    figures = context.succeed(listeners, seed)
    headers = context.early_headers(len(body.inputs)) | figures.headers()

    def show() -> web.Response:
        shown = answer(service.text, listeners, options, prefix, details)
        return json_response([shown] if listed else shown, headers)

    return await written(sum(map(entries, listeners)) if details else 0, show)


async def _stream(
    context: RequestContext, body: GenerateRequest, full_text: bool
) -> web.StreamResponse:
    service = context.service
    options = _options(context, body, stream=True)
    with service.permits.take(1):
        [[request]] = await prepare(context, [body.inputs], options, body.add_special_tokens)
        stream = EventStream(context.request, context.early_headers(len(body.inputs)))
        listener = GenerateStream(
            request,
            output(service, request, options),
            stream,
            service.text,
            prefix=body.inputs if full_text else "",
            details=body.parameters.details,
            samples=options.samples,
        )
        return await stream_out(
            context,
            stream,
            [listener],
            seed=request.sampling.seed if options.samples else None,
            last_events=lambda: b"",
            error_event=error_event,
        )


def _options(context: RequestContext, body: GenerateRequest, *, stream: bool) -> Options:
    service = context.service
    options = body.parameters.options(service.config, stream=stream, priority=context.priority())
    options.check(service.engine.limits)
    return options


async def run_tokenize(request: web.Request, raw: object) -> web.Response:
    """The tokens of `inputs` with their places in it, in characters."""
    service = request.app[SERVICE]
    body = await checked(request, GenerateRequest, raw)
    most = service.engine.limits.max_input_tokens
    with service.permits.take(1), listing_errors(most, "inputs"):
        tokens = await service.text.spans_json(body.inputs, body.add_special_tokens, most)
    return web.Response(body=tokens, content_type="application/json")
