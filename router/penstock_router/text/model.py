"""Everything about text that the API needs, with the work off the event loop."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from penstock_router.logs import log
from penstock_router.text.chat_template import ChatTemplate, TemplateError, load_chat_template
from penstock_router.text.detokenizer import Detokenizer, token_table
from penstock_router.text.files import tokenizer_config
from penstock_router.text.library import give_back_memory
from penstock_router.text.spans import TokenSpan, spans_json
from penstock_router.text.tokenizer import Tokenizer
from penstock_router.text.workers import Workers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat template gets. The strings in it are the client's: never control tokens."""

    messages: Sequence[Mapping[str, Any]]  # content is a string or absent
    template_variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def continues(self) -> bool:
        """The last message is the assistant's: the answer goes on where it ends."""
        return bool(self.messages) and self.messages[-1]["role"] == "assistant"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text and tokens."""

    text: str
    ids: tuple[int, ...]
    spans: tuple[TokenSpan, ...] = ()


class TextModel:
    """Tokenizer, detokeniser and chat template of one model. Encodes in worker threads."""

    def __init__(
        self, tokenizer: Tokenizer, chat_template: ChatTemplate | None, workers: int
    ) -> None:
        self.tokenizer = tokenizer
        self._chat_template = chat_template
        self._tokens = token_table(tokenizer)
        self._workers = Workers(workers)

    @classmethod
    def load(cls, model_path: str | Path, config_path: str | None, workers: int) -> TextModel:
        """Read the folder. config_path: a tokenizer_config.json or .jinja to use instead of its
        own. Raises ValueError that names what is missing or wrong."""
        folder = Path(model_path)
        override = Path(config_path) if config_path else None
        config = tokenizer_config(folder, override)
        template = load_chat_template(folder, config, override)
        return cls(Tokenizer.load(folder, override), template, workers)

    def warn_about_rows(self, rows: int) -> None:
        """Say in the log that the tokenizer has ids which the model has no rows for."""
        beyond = {i: token for i, token in self.tokenizer.vocabulary().items() if i >= rows}
        if beyond:
            token_id, token = min(beyond.items())
            log(
                "WARNING",
                f"the tokenizer has {len(beyond)} tokens beyond the model's {rows}, the first is "
                f"{token!r} = {token_id}: requests that come to one of them are refused",
            )

    def close(self) -> None:
        """Let the worker threads end; does not wait for them."""
        self._workers.close()

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        """Of a sequence that continues the prompt."""
        return self._tokens.detokenizer(prompt)

    def token_text(self, token_id: int) -> str:
        """One token within a text: its space included, U+FFFD for part of a character; the name
        of a special token."""
        return self._tokens.text(token_id)

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes of a token, which may be part of a character; None where nobody knows them."""
        return self._tokens.raw(token_id)

    async def encode(
        self, text: str, add_special_tokens: bool = True, limit: int | None = None
    ) -> Sequence[int]:
        """Token ids of a prompt, special tokens in it included.

        Raises TooManyTokens when there are more than `limit`, and TokenizerError.
        """
        return await self._encode(
            text, lambda: array("I", self.tokenizer.encode(text, add_special_tokens, limit))
        )

    async def spans_json(
        self, text: str, add_special_tokens: bool = True, limit: int | None = None
    ) -> bytes:
        """Tokens of a prompt with their places, as JSON.

        Raises TooManyTokens where there are more than `limit` for certain, and TokenizerError.
        """

        def work() -> bytes:
            self.tokenizer.bound.check(text, limit)
            return spans_json(text, self.tokenizer.each_span(text, add_special_tokens))

        return await self._encode(text, work)

    async def _encode(self, text: str, work: Callable[[], T]) -> T:
        def encode() -> T:
            try:
                return work()
            finally:
                give_back_memory(text)

        return await self._run(encode)

    async def render(self, conversation: Conversation, with_spans: bool = False) -> Rendered:
        """Text and tokens of a conversation. Raises TemplateError."""
        return await self._run(lambda: self._render(conversation, with_spans))

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._workers.run(work)

    def _render(self, conversation: Conversation, with_spans: bool) -> Rendered:
        if self._chat_template is None:
            raise TemplateError("template not found")
        try:
            mark = self.tokenizer.mark_for(_strings(conversation))
        except ValueError as error:
            raise TemplateError(str(error)) from error

        def disarm(text: str) -> str:
            return self.tokenizer.disarm(text, mark)

        messages = _map_strings(conversation.messages, disarm)
        text = self._chat_template.render(
            messages=messages,
            add_generation_prompt=not conversation.continues,
            tools=None,
            documents=None,
            **_map_strings(conversation.template_variables, disarm),
        )
        if conversation.continues:
            text = _cut_after(text, messages[-1].get("content") or "")
        ids = tuple(self.tokenizer.encode_disarmed(text, mark))
        spans = self.tokenizer.spans_disarmed(text, mark) if with_spans else ()
        return Rendered(text.replace(mark, ""), ids, tuple(spans))


def _cut_after(text: str, last_message: str) -> str:
    """The text up to the end of the last message, without what the template puts behind it."""
    words = last_message.strip()
    position = text.rfind(words)
    if position < 0:
        raise TemplateError("the template does not show the last message, so it cannot go on")
    # Spaces at the end of the message stay, where the template keeps them.
    end = position + len(words)
    kept = last_message[len(last_message.rstrip()) :]
    return text[: end + len(kept)] if text.startswith(kept, end) else text[:end]


def _strings(conversation: Conversation) -> list[str]:
    found: list[str] = []

    def collect(text: str) -> str:
        found.append(text)
        return text

    _map_strings([conversation.messages, conversation.template_variables], collect)
    return found


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a JSON value with every string in it changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_map_strings(item, change) for item in value]
    return value
