"""Anthropic's API, and servers that speak it, by Anthropic's own package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from penstock.lang.backend import Backend, Generation
from penstock.lang.backends.openai import conversation, translated
from penstock.lang.backends.packages import needed, refuse
from penstock.lang.prompt import Prompt
from penstock.lang.sampling import Sampling


class Anthropic(Backend):
    """model_name: of the model. arguments: of `anthropic.Anthropic`, as base_url and api_key.

    Raises ImportError without the package.
    """

    def __init__(self, model_name: str, *args: Any, **arguments: Any) -> None:
        self._package = needed("anthropic", "Anthropic")
        self._client: Any = self._package.Anthropic(*args, **arguments)
        self.model = model_name

    def generate(self, prompt: Prompt, sampling: Sampling) -> Generation:
        with self._errors():
            answer = self._client.messages.create(**self._body(prompt, sampling))
        return Generation(_text(answer), _meta(answer))

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Generation]:
        text = ""
        with self._errors(), self._client.messages.stream(**self._body(prompt, sampling)) as stream:
            for piece in stream.text_stream:
                text += piece
                yield Generation(text, {})
            answer = stream.get_final_message()
            yield Generation(_text(answer), _meta(answer))

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        given = sampling.given(
            "stop_regex", "min_new_tokens", "stop_token_ids", "min_p", "frequency_penalty",
            "presence_penalty", "ignore_eos", "seed", "return_logprob", "regex", "json_schema",
            "grammar",
        )  # fmt: skip
        refuse("Anthropic", **given, n=sampling.n != 1)
        messages = conversation(prompt)
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [_shown(m) for m in messages if m["role"] != "system"],
            "max_tokens": sampling.max_new_tokens,
        }
        if system:
            body["system"] = system
        if sampling.stop:
            body["stop_sequences"] = list(sampling.stop)
        # Newer versions of the package have no arguments for these.
        if drawn := sampling.given("temperature", "top_p", "top_k"):
            body["extra_body"] = drawn
        if sampling.tools:
            body["tools"] = [_tool(tool["function"]) for tool in sampling.tools]
            if sampling.tool_choice is not None:
                body["tool_choice"] = _choice(sampling.tool_choice)
        return body

    def _errors(self) -> Any:
        return translated(self._package.AnthropicError)


def _shown(message: dict[str, Any]) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    if message["content"]:
        blocks.append({"type": "text", "text": message["content"]})
    for call in message.get("tool_calls", ()):
        function = call["function"]
        arguments = json.loads(function["arguments"] or "{}")
        blocks.append(
            {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}
        )
    return {"role": message["role"], "content": blocks}


def _tool(function: Any) -> dict[str, Any]:
    shown = {"name": function["name"], "input_schema": function.get("parameters") or _NO_PARAMETERS}
    if function.get("description"):
        shown["description"] = function["description"]
    return shown


_NO_PARAMETERS = {"type": "object", "properties": {}}
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def _choice(choice: Any) -> dict[str, Any]:
    """OpenAI's `tool_choice` as Anthropic's."""
    if isinstance(choice, str):
        return {"type": _CHOICES.get(choice, choice)}
    return {"type": "tool", "name": choice["function"]["name"]}


def _text(answer: Any) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")


def _meta(answer: Any) -> dict[str, Any]:
    calls = [
        {
            "id": block.id,
            "type": "function",
            "function": {"name": block.name, "arguments": json.dumps(block.input)},
        }
        for block in answer.content
        if block.type == "tool_use"
    ]
    thought = "".join(block.thinking for block in answer.content if block.type == "thinking")
    return {
        "id": answer.id,
        "finish_reason": {"type": answer.stop_reason, "matched": answer.stop_sequence},
        "prompt_tokens": answer.usage.input_tokens,
        "completion_tokens": answer.usage.output_tokens,
        "content": _text(answer),
        "reasoning_content": thought,
        "tool_calls": calls,
    }
