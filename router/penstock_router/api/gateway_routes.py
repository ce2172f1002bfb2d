"""Routes of hosting platforms: SageMaker's /invocations, Vertex AI's /vertex."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from penstock_router.api.errors import invalid
from penstock_router.api.fields import checked
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_completion import CompletionRequest
from penstock_router.api.openai_routes import run_chat, run_completion
from penstock_router.api.prepare import output, prepare
from penstock_router.api.request_context import RequestContext
from penstock_router.api.sequence_group import Collector
from penstock_router.api.streaming import collect
from penstock_router.api.tgi_routes import json_response, run_compat
from penstock_router.api.tgi_schema import GenerateRequest, VertexRequest


async def invocations(context: RequestContext) -> web.StreamResponse:
    """POST /invocations: the body shows which of the other routes is meant."""
    body: Any = await context.json()
    if "inputs" in body:
        return await run_compat(context, await checked(context.request, GenerateRequest, body))
    if "messages" in body:
        return await run_chat(context, await checked(context.request, ChatRequest, body))
    if "prompt" in body:
        return await run_completion(
            context, await checked(context.request, CompletionRequest, body)
        )
    raise invalid("the body needs one of `inputs`, `messages` and `prompt`")


async def vertex(context: RequestContext) -> web.StreamResponse:
    """POST /vertex: several requests at once, their texts in one list."""
    body = await context.body(VertexRequest)
    service, limits = context.service, context.service.engine.limits
    most = service.config.max_client_batch_size
    if len(body.instances) > most:
        raise invalid(
            f"Number of instances exceeds the maximum allowed batch size of {most}. "
            f"Given: {len(body.instances)}"
        )
    jobs = [await _job(context, instance) for instance in body.instances]
    for _, options, _ in jobs:
        options.check(limits)
    groups: list[list[Collector]] = []
    with service.permits.take(sum(options.sequences for _, options, _ in jobs)):
        for prompt, options, special in jobs:
            [requests] = await prepare(context, [prompt], options, special)
            groups.append([Collector(r, output(service, r, options)) for r in requests])
        listeners = [listener for group in groups for listener in group]
        await collect(context, listeners)
    best = [max(group, key=lambda t: t.mean_logprob if len(group) > 1 else 0) for group in groups]
    headers = context.early_headers(0) | context.succeed(listeners, None).headers()
    return json_response({"predictions": [listener.text for listener in best]}, headers)


async def _job(context: RequestContext, instance: dict[str, Any]) -> tuple[Any, Any, bool]:
    """Prompt, options, and whether the tokeniser adds special tokens."""
    config, priority = context.service.config, context.priority()
    if "messages" in instance:
        chat = await checked(context.request, ChatRequest, instance)
        context.service.check_model(chat.model)
        if chat.stream or chat.n > 1:
            raise invalid("`instances` must neither stream nor ask for several answers")
        return chat.conversation(), chat.options(config, priority=priority), False
    body = await checked(context.request, GenerateRequest, instance)
    if body.stream:
        raise invalid("`instances` must neither stream nor ask for several answers")
    options = body.parameters.options(config, stream=False, priority=priority)
    return body.inputs, options, body.add_special_tokens
