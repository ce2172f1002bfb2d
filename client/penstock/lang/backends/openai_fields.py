"""Sampling as fields of OpenAI's API, for the packages that speak it.

What OpenAI's own models have no field for goes under the names of vLLM's server, which Penstock's
knows too; a server that knows them not refuses them, so nothing is lost without a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from penstock.lang.sampling import Sampling

STANDARD = ("temperature", "top_p", "n", "stop", "frequency_penalty", "presence_penalty", "seed")
EXTRA = ("top_k", "min_p", "stop_token_ids", "ignore_eos")


def fields(sampling: Sampling, *, chat: bool) -> dict[str, Any]:
    """Of a request, `extra_body` among them where something needs it."""
    body: dict[str, Any] = sampling.given(*STANDARD)
    body["temperature"] = sampling.temperature
    body["max_tokens"] = sampling.max_new_tokens
    extra: dict[str, Any] = sampling.given(*EXTRA)
    if sampling.min_new_tokens:
        extra["min_tokens"] = sampling.min_new_tokens
    if sampling.return_logprob:
        body |= _logprobs(sampling.top_logprobs_num or 0, chat)
    if sampling.json_schema is not None:
        # The package knows the field of conversations only.
        (body if chat else extra)["response_format"] = _schema(sampling.json_schema)
    held = {"regex": sampling.regex, "grammar": sampling.grammar}
    if held := {name: value for name, value in held.items() if value is not None}:
        extra["structured_outputs"] = held
    if sampling.tools:
        body["tools"] = list(sampling.tools)
        if sampling.tool_choice is not None:
            body["tool_choice"] = sampling.tool_choice
    return body | ({"extra_body": extra} if extra else {})


def _logprobs(top: int, chat: bool) -> dict[str, Any]:
    return {"logprobs": True, "top_logprobs": top} if chat else {"logprobs": max(top, 1)}


def _schema(schema: Any) -> dict[str, Any]:
    if isinstance(schema, str):
        schema = json.loads(schema)
    named = {"name": "answer", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}


def calls(message: Any) -> list[dict[str, Any]]:
    """`tool_calls` of a message as dicts."""
    found = getattr(message, "tool_calls", None) or ()
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in found
    ]


def meta(choice: Any, usage: Any, message: Any = None) -> dict[str, Any]:
    """`get_meta_info` of a choice, under SGLang's names where it has one."""
    told: dict[str, Any] = {"finish_reason": {"type": choice.finish_reason}}
    if usage is not None:
        told["prompt_tokens"] = usage.prompt_tokens
        told["completion_tokens"] = usage.completion_tokens
    if (logprobs := getattr(choice, "logprobs", None)) is not None:
        told["logprobs"] = _plain(logprobs)
    if message is not None:
        told["content"] = message.content or ""
        told["reasoning_content"] = getattr(message, "reasoning_content", None) or ""
        told["tool_calls"] = calls(message)
    return told


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    return dump() if dump is not None else value
