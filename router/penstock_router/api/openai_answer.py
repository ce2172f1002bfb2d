"""Answers of OpenAI's routes: their shapes, and what whole and streamed ones share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired

import orjson
from typing_extensions import TypedDict

from penstock_router.api.echo import EchoedPrompt
from penstock_router.api.logprobs import CompletionLogprobs, Logprobs
from penstock_router.api.reply import ReplyOutput
from penstock_router.api.sequence_group import Collector, SequenceListener
from penstock_router.api.service import FINGERPRINT
from penstock_router.request import FinishReason

FINISH_REASONS = {
    FinishReason.EOS: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
}


class PromptTokensDetails(TypedDict):
    cached_tokens: int


class CompletionTokensDetails(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: NotRequired[CompletionTokensDetails]  # of chats with reasoning


@dataclass(frozen=True, slots=True)
class Head:
    """What every answer and every chunk of one request begins with."""

    object: str
    prefix: str
    model: str
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    created: int = field(default_factory=lambda: int(time.time()))

    def fields(self) -> dict[str, Any]:
        return {
            "id": f"{self.prefix}-{self.id}",
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }

    def template(self, choice: str, tail: str) -> tuple[bytes, bytes]:
        """A chunk around the place where the text goes.

        choice: JSON of the choice up to the text. tail: what follows the text.
        """
        fields = orjson.dumps(self.fields())
        before = b"data: " + fields[:-1] + b',"choices":[{' + choice.encode()
        return before, tail.encode()


def usage(listeners: Sequence[SequenceListener]) -> Usage:
    """Tokens of a request; a prompt counts once, however many sequences continue it."""
    prompts = {id(listener.request.prompt): listener for listener in listeners}.values()
    prompt = sum(len(listener.request.prompt) for listener in prompts)
    completion = sum(listener.end.generated_tokens for listener in listeners)
    total = counted(prompt, completion, sum(listener.end.cached_tokens for listener in prompts))
    read = [listener.output for listener in listeners if isinstance(listener.output, ReplyOutput)]
    if read:
        thoughts = sum(output.reasoning_tokens for output in read)
        total["completion_tokens_details"] = {"reasoning_tokens": thoughts}
    return total


def counted(prompt: int, completion: int, cached: int = 0) -> Usage:
    """Tokens of a request until now."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class CalledFunction(TypedDict):
    name: str
    arguments: str


class ToolCall(TypedDict):
    id: str
    type: str
    function: CalledFunction


class ChatMessage(TypedDict):
    role: str
    content: str | None
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    function_call: NotRequired[CalledFunction]


class ChatChoice(TypedDict):
    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None
    finish_reason: str
    stop_reason: str | int | None
    token_ids: NotRequired[list[int]]


PromptLogprobs = list[dict[str, dict[str, Any]] | None]


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str
    stop_reason: str | int | None
    token_ids: NotRequired[list[int]]
    prompt_token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[PromptLogprobs]


class ChatCompletion(TypedDict):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[PromptLogprobs]


class Completion(TypedDict):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


def collected_logprobs(
    listener: Collector, logprobs: Logprobs, echo: EchoedPrompt | None = None
) -> dict[str, Any]:
    """Log-probabilities of a finished choice, behind those of the prompt that it repeats."""
    if echo is not None and isinstance(logprobs, CompletionLogprobs):
        logprobs.add_prompt(
            listener.request.prompt, echo.offsets, listener.prompt_logprobs, listener.prompt_tops
        )
    rows = zip(listener.ids, listener.texts, listener.logprobs, listener.tops, strict=True)
    for token_id, text, value, top in rows:
        logprobs.add(token_id, text, value, top)
    return logprobs.take()
