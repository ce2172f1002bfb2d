"""Everything about text that the API needs, with the work off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from penstock_router.templates.errors import TemplateError
from penstock_router.templates.pool import TemplatePool
from penstock_router.templates.template import Job, Page, Script
from penstock_router.text.chat_template import special_tokens, template_source
from penstock_router.text.detokenizer import Detokenizer, detokenizer_factory
from penstock_router.text.files import tokenizer_config
from penstock_router.text.marked import MarkedText
from penstock_router.text.tokenizer import Tokenizer, TokenSpan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat template gets. The strings in it are the client's: never control tokens.

    content of a message is a string or a list of parts. What the client left open is None: then an
    assistant's last message is continued, and behind any other one an answer begins.
    """

    messages: Sequence[Mapping[str, Any]]
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @property
    def continues(self) -> bool:
        """The answer goes on where the last message ends."""
        if self.continue_final_message is not None:
            return self.continue_final_message
        return not self.add_generation_prompt and self.messages[-1]["role"] == "assistant"

    @property
    def job(self) -> Job:
        """The same for the processes that render."""
        prompt = self.add_generation_prompt
        if prompt is None:
            prompt = not self.continues
        return Job(self.messages, self.template_variables, prompt, self.continues)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text and tokens."""

    text: str
    ids: tuple[int, ...]
    spans: tuple[TokenSpan, ...] = ()


class TextModel:
    """Tokenizer, detokeniser and chat template of one model.

    Encodes in worker threads, and renders in processes.
    """

    def __init__(
        self, tokenizer: Tokenizer, chat_template: TemplatePool | None, workers: int
    ) -> None:
        self.tokenizer = tokenizer
        self._chat_template = chat_template
        self._factory = detokenizer_factory(tokenizer)
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="text")

    @classmethod
    def load(cls, model_path: str | Path, config_path: str | None, workers: int) -> TextModel:
        """Read the folder. config_path: a tokenizer_config.json or .jinja to use instead of its
        own. Raises ValueError that names what is missing or wrong."""
        folder = Path(model_path)
        override = Path(config_path) if config_path else None
        config = tokenizer_config(folder, override)
        tokenizer = Tokenizer(folder / "tokenizer.json")
        source = template_source(folder, config, override)
        if source is None:
            return cls(tokenizer, None, workers)
        script = Script(source, special_tokens(folder, config), list(tokenizer.special_tokens))
        try:
            return cls(tokenizer, TemplatePool(script, workers), workers)
        except TemplateError as error:
            raise ValueError(f"chat template of {folder}: {error}") from error

    def close(self) -> None:
        """Let the worker threads end, and end the processes that render; waits for neither."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._chat_template is not None:
            self._chat_template.close()

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        """Of a sequence that continues the prompt."""
        return self._factory(prompt)

    def token_text(self, token_id: int) -> str:
        """One token by itself; the name of a special token."""
        return self.tokenizer.decode([token_id], skip_special_tokens=False)

    async def encode(self, text: str, add_special_tokens: bool = True) -> tuple[int, ...]:
        """Token ids of a prompt, special tokens in it included."""
        return await self._run(lambda: tuple(self.tokenizer.encode(text, add_special_tokens)))

    async def spans(self, text: str, add_special_tokens: bool = True) -> list[TokenSpan]:
        """Tokens of a prompt with their places."""
        return await self._run(lambda: self.tokenizer.spans(text, add_special_tokens))

    async def render(self, conversation: Conversation, with_spans: bool = False) -> Rendered:
        """Text and tokens of a conversation. Raises TemplateError."""
        if self._chat_template is None:
            raise TemplateError("template not found")
        page = await self._chat_template.render(conversation.job)
        return await self._run(lambda: self._tokenise(page, with_spans))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _tokenise(self, page: Page, with_spans: bool) -> Rendered:
        marked = MarkedText(page.text, tuple((start, stop) for start, stop in page.client))
        spans = tuple(_spans_marked(self.tokenizer, marked)) if with_spans else ()
        ids = (s.id for s in spans) if with_spans else _encode_marked(self.tokenizer, marked)
        return Rendered(marked.text, tuple(ids), spans)


def _encode_marked(tokenizer: Tokenizer, marked: MarkedText) -> list[int]:
    return tokenizer.encode_disarmed(*_disarmed(tokenizer, marked))


def _spans_marked(tokenizer: Tokenizer, marked: MarkedText) -> list[TokenSpan]:
    return tokenizer.spans_disarmed(*_disarmed(tokenizer, marked))


def _disarmed(tokenizer: Tokenizer, marked: MarkedText) -> tuple[str, str]:
    text = marked.text
    try:
        mark = tokenizer.mark_for([text])
    except ValueError as error:
        raise TemplateError(str(error)) from error
    pieces: list[str] = []
    end = 0
    for start, stop in marked.client:
        pieces += (text[end:start], tokenizer.disarm(text[start:stop], mark))
        end = stop
    return "".join([*pieces, text[end:]]), mark
