"""Answers of OpenAI's routes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from typing_extensions import TypedDict

from penstock_router.api.errors import ApiError
from penstock_router.api.output import Output
from penstock_router.api.run import Collector, Track
from penstock_router.api.service import FINGERPRINT
from penstock_router.api.sse import EventStream
from penstock_router.api.tgi_answer import number
from penstock_router.request import Finish, FinishReason, GenerationRequest, TopTokens
from penstock_router.text import TextModel

DONE = b"data: [DONE]\n\n"

FINISH_REASONS = {
    FinishReason.EOS: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
}


class PromptTokensDetails(TypedDict):
    cached_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


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


def usage(tracks: Sequence[Track]) -> Usage:
    """Tokens of a request; a prompt counts once, however many sequences continue it."""
    prompts = {id(track.request.prompt): track for track in tracks}.values()
    prompt = sum(len(track.request.prompt) for track in prompts)
    completion = sum(track.end.generated_tokens for track in tracks)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": sum(track.end.cached_tokens for track in prompts)
        },
    }


class ChatLogprobs:
    """Log-probabilities as chat completions show them."""

    def __init__(self, text: TextModel) -> None:
        self._text = text

    def add(self, token_id: int, shown: str, logprob: float, top: TopTokens) -> dict[str, Any]:
        """Of one token. shown: its text, which chat leaves to `content`."""
        likely = [self._entry(token, value) for token, value in top]
        return {**self._entry(token_id, logprob), "top_logprobs": likely}

    def join(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Of a whole choice or chunk."""
        return {"content": list(entries)}

    def _entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        token = self._text.token_text(token_id)
        # A token may be part of a character; then its bytes are not those of its text.
        raw = None if "\ufffd" in token else list(token.encode())
        return {"token": token, "logprob": number(logprob), "bytes": raw}


class CompletionLogprobs:
    """Log-probabilities as plain completions show them."""

    def __init__(self, text: TextModel) -> None:
        self._text = text
        self._offset = 0

    def add(self, token_id: int, shown: str, logprob: float, top: TopTokens) -> dict[str, Any]:
        """Of one token. shown: the text that it made visible."""
        entry = {
            "token": self._text.token_text(token_id),
            "logprob": number(logprob),
            "top": {self._text.token_text(token): number(value) for token, value in top},
            "offset": self._offset,
        }
        self._offset += len(shown)
        return entry

    def join(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Of a whole choice or chunk."""
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [entry["top"] for entry in entries],
            "text_offset": [entry["offset"] for entry in entries],
        }


class ChatMessage(TypedDict):
    role: str
    content: str


class ChatChoice(TypedDict):
    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None
    finish_reason: str


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatCompletion(TypedDict):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class Completion(TypedDict):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


Logprobs = ChatLogprobs | CompletionLogprobs


def collected_logprobs(
    track: Collector, logprobs: Logprobs, special: frozenset[int]
) -> dict[str, Any]:
    """Log-probabilities of a finished choice. Special tokens, EOS for one, are left out."""
    rows = zip(track.ids, track.texts, track.logprobs, track.tops, strict=True)
    entries = [logprobs.add(i, t, value, top) for i, t, value, top in rows if i not in special]
    return logprobs.join(entries)


@dataclass(frozen=True, slots=True)
class Shape:
    """How chat and plain completions differ in a chunk."""

    before_text: str  # JSON of a choice, from the index to the text
    after_text: str  # and from the text to the log-probabilities
    end: str  # a choice that ends and adds no text
    first: str | None  # sent once before everything: who speaks


CHAT = Shape(
    before_text='"delta":{"content":',
    after_text="}",
    end='"delta":{}',
    first='"delta":{"role":"assistant","content":""}',
)
COMPLETION = Shape(before_text='"text":', after_text="", end='"text":""', first=None)


class ChoiceStream(Track):
    """Streams one choice: an event for each token that shows text.

    Everything but text and log-probabilities is known when the request comes, so an event is
    those between two templates.
    """

    def __init__(
        self,
        request: GenerationRequest,
        output: Output,
        stream: EventStream,
        *,
        head: Head,
        shape: Shape,
        index: int,
        logprobs: Logprobs | None,
        include_usage: bool,
        special_ids: frozenset[int],
    ) -> None:
        super().__init__(request, output)
        self._stream = stream
        self._logprobs = logprobs
        self._special = special_ids
        self._entries: list[dict[str, Any]] = []
        self._shape = shape
        close = '}],"usage":null}\n\n' if include_usage else "}]}\n\n"
        self._render: Callable[[str, str], tuple[bytes, bytes]] = lambda choice, tail: (
            head.template(f'"index":{index},{choice}', tail + close)
        )
        self._before, self._after = self._render(
            shape.before_text, shape.after_text + ',"logprobs":null,"finish_reason":null'
        )
        self._silent = True  # nothing sent yet

    def token(self, token_id: int, logprob: float, top: TopTokens) -> bool:
        output = self.output
        output.push(token_id)
        if self._silent:
            self._say_who()
        if self._logprobs is not None and token_id not in self._special:
            self._entries.append(self._logprobs.add(token_id, output.released, logprob, top))
        if output.released:
            self._show(output.released)
        return output.stopped

    def _say_who(self) -> None:
        self._silent = False
        if self._shape.first is not None:
            self._push_choice(self._shape.first, None)

    def _show(self, text: str) -> None:
        if self._logprobs is None:
            self._stream.push(self._before + orjson.dumps(text) + self._after)
        else:
            shape = self._shape
            self._push_choice(
                f"{shape.before_text}{orjson.dumps(text).decode()}{shape.after_text}", None
            )

    def _push_choice(self, choice: str, finish_reason: str | None) -> None:
        logprobs = None
        if self._logprobs is not None and self._entries:
            logprobs = self._logprobs.join(self._entries)
            self._entries = []
        before, after = self._render(
            f'{choice},"logprobs":{orjson.dumps(logprobs).decode()}',
            f',"finish_reason":{orjson.dumps(finish_reason).decode()}',
        )
        self._stream.push(before + after)

    def finish(self, finish: Finish) -> None:
        if rest := self.output.close():
            self._show(rest)
        self._push_choice(self._shape.end, FINISH_REASONS[finish.reason])
        super().finish(finish)


def last_events(head: Head, tracks: Sequence[Track], include_usage: bool) -> bytes:
    """What ends a stream that succeeded."""
    if not include_usage:
        return DONE
    chunk = head.fields() | {"choices": [], "usage": usage(tracks)}
    return b"data: " + orjson.dumps(chunk) + b"\n\n" + DONE


def error_event(error: ApiError) -> bytes:
    """The last event of a stream that failed."""
    return b"data: " + orjson.dumps(error.body("/v1/")) + b"\n\n"
