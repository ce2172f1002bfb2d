"""How servers are asked and what their events say: one row a protocol.

A token is counted once, by what the server says: `usage` at the end of a stream, `details` of TGI,
`meta_info` of SGLang. Where it says nothing an event counts as a token. What an event brings is
known where the server counts along (SGLang, `continuous_usage_stats`); gaps are then a token's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from penstock.bench.prompts import Prompt

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What all requests of a load have in common. Temperature 0 is greedy."""

    model: str
    temperature: float = 0.0
    top_p: float = 1.0
    ignore_eos: bool = True  # every answer has as many tokens as were asked for
    usage_in_chunks: bool = False  # ask the server to count along in every event
    extra: Mapping[str, Any] = field(default_factory=dict)  # more fields; null takes one away


@dataclass(frozen=True, slots=True)
class Seen:
    """What one event says."""

    token: bool  # it brings at least one
    total: int | None = None  # tokens of the answer so far
    tokens: int | None = None  # tokens of the whole answer
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Protocol:
    """A row. takes_ids: prompts may be token ids."""

    path: str
    body: Callable[[Prompt, Asking], Json]
    read: Callable[[Json], Seen]
    takes_ids: bool = False


def request_body(protocol: str, prompt: Prompt, asking: Asking) -> Json:
    """The body of a request, the user's own fields in it."""
    body = PROTOCOLS[protocol].body(prompt, asking) | dict(asking.extra)
    return {name: value for name, value in body.items() if value is not None}


def completions_body(prompt: Prompt, asking: Asking) -> Json:
    """OpenAI's /v1/completions; ids in place of text, and `ignore_eos`, are vLLM's."""
    return _openai(prompt, asking) | {"prompt": prompt.content, "max_tokens": prompt.output}


def _chat_body(prompt: Prompt, asking: Asking) -> Json:
    messages = [{"role": "user", "content": prompt.content}]
    return _openai(prompt, asking) | {
        "messages": messages,
        "max_completion_tokens": prompt.output,
    }


def _openai(prompt: Prompt, asking: Asking) -> Json:
    options = {"include_usage": True}
    if asking.usage_in_chunks:
        options["continuous_usage_stats"] = True
    body: Json = {
        "model": asking.model,
        "temperature": asking.temperature,
        "top_p": asking.top_p,
        "stream": True,
        "stream_options": options,
    }
    if prompt.schema is not None:
        held = {"name": "answer", "schema": prompt.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": held}
    elif asking.ignore_eos:
        body["ignore_eos"] = True
    return body


def _tgi_body(prompt: Prompt, asking: Asking) -> Json:
    parameters: Json = {"max_new_tokens": prompt.output, "details": True}
    if asking.temperature > 0:
        parameters |= {"do_sample": True, "temperature": asking.temperature}
    if asking.top_p < 1:
        parameters["top_p"] = asking.top_p
    if prompt.schema is not None:
        parameters["grammar"] = {"type": "json", "value": prompt.schema}
    elif asking.ignore_eos:
        parameters["ignore_eos"] = True
    return {"inputs": prompt.content, "parameters": parameters}


def _sglang_body(prompt: Prompt, asking: Asking) -> Json:
    sampling: Json = {"max_new_tokens": prompt.output, "temperature": asking.temperature}
    if asking.top_p < 1:
        sampling["top_p"] = asking.top_p
    if prompt.schema is not None:
        sampling["json_schema"] = orjson.dumps(prompt.schema).decode()
    elif asking.ignore_eos:
        sampling["ignore_eos"] = True
    name = "text" if isinstance(prompt.content, str) else "input_ids"
    return {name: prompt.content, "sampling_params": sampling, "stream": True}


def _read_completion(event: Json) -> Seen:
    return _with_usage(event, bool(event.get("choices")))


def _read_chat(event: Json) -> Seen:
    """An event that only says who speaks brings no token."""
    shown = False
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        named = ("content", "reasoning_content", "reasoning", "tool_calls")
        shown = shown or any(delta.get(name) for name in named)
    return _with_usage(event, shown)


def _with_usage(event: Json, token: bool) -> Seen:
    usage = event.get("usage")
    if not isinstance(usage, dict):
        return Seen(token)
    details = usage.get("prompt_tokens_details") or {}
    total = usage.get("completion_tokens")
    return Seen(
        token,
        total if token else None,
        total,
        usage.get("prompt_tokens"),
        details.get("cached_tokens"),
    )


def _read_tgi(event: Json) -> Seen:
    token = "token" in event
    if not (details := event.get("details")):
        return Seen(token)
    return Seen(token, None, details.get("generated_tokens"), details.get("input_length"))


def _read_sglang(event: Json) -> Seen:
    said = event.get("meta_info") or {}
    total = said.get("completion_tokens")
    return Seen(bool(total), total, total, said.get("prompt_tokens"), said.get("cached_tokens"))


PROTOCOLS = {
    "completions": Protocol("/v1/completions", completions_body, _read_completion, True),
    "chat": Protocol("/v1/chat/completions", _chat_body, _read_chat),
    "generate_stream": Protocol("/generate_stream", _tgi_body, _read_tgi),
    "sglang": Protocol("/generate", _sglang_body, _read_sglang, True),
}
# What `--backend` takes, as vLLM's and SGLang's benchmarks call it.
BACKENDS = {
    "penstock": "completions",
    "openai": "completions",
    "vllm": "completions",
    "sglang-oai": "completions",
    "lmdeploy": "completions",
    "openai-chat": "chat",
    "vllm-chat": "chat",
    "sglang-oai-chat": "chat",
    "penstock-chat": "chat",
    "tgi": "generate_stream",
    "sglang": "sglang",
    "sglang-native": "sglang",
}
_ROUTES = {protocol.path: name for name, protocol in PROTOCOLS.items()}


def protocol_named(backend: str, endpoint: str | None = None) -> tuple[str, str]:
    """The protocol's name and the path, of a backend and perhaps a path that the user gave.

    Raises ValueError for a path that no protocol has the end of.
    """
    name = BACKENDS.get(backend, backend)
    if endpoint is None:
        return name, PROTOCOLS[name].path
    for path, other in _ROUTES.items():
        if endpoint.endswith(path):
            return other, endpoint
    known = ", ".join(_ROUTES)
    raise ValueError(f"endpoint {endpoint!r}: expected a path that ends with one of {known}")
