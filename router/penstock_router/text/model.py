"""Everything about text that the API needs, with the work off the event loop."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from penstock_router.allocator import give_back
from penstock_router.logs import log
from penstock_router.templates.errors import TemplateError
from penstock_router.templates.pool import TemplatePool
from penstock_router.templates.template import Job, Script
from penstock_router.text.chat_template import special_tokens, template_source
from penstock_router.text.detokenizer import Detokenizer
from penstock_router.text.eos import eos_token_ids
from penstock_router.text.files import tokenizer_config
from penstock_router.text.lanes import LARGE, Lanes
from penstock_router.text.marked import MarkedText
from penstock_router.text.spans import TokenSpan, spans_json
from penstock_router.text.token_table import token_table
from penstock_router.text.tokenizer import Tokenizer
from penstock_router.tools.plan import Replies

T = TypeVar("T")
NO_VARIABLES: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat template gets. The strings in it are the client's: never control tokens.

    content of a message is a string or a list of parts. What the client left open is None: then an
    assistant's last message is continued, and behind any other one an answer begins.
    tools: in OpenAI's shape; None: none.
    """

    messages: Sequence[Mapping[str, Any]]
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: Sequence[Mapping[str, Any]] | None = None

    @property
    def continues(self) -> bool:
        """The answer goes on where the last message ends."""
        if self.continue_final_message is not None:
            return self.continue_final_message
        return not self.add_generation_prompt and self.messages[-1]["role"] == "assistant"

    def job(self, defaults: Mapping[str, Any] = NO_VARIABLES) -> Job:
        """The same for the processes that render. defaults: variables that it does not set."""
        prompt = self.add_generation_prompt
        if prompt is None:
            prompt = not self.continues
        variables = {**defaults, **self.template_variables}
        return Job(self.messages, variables, prompt, self.continues, self.tools)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text and tokens."""

    text: str
    ids: Sequence[int]
    spans: Sequence[TokenSpan] = ()
    spans_json: bytes = b"[]"


class TextModel:
    """Tokenizer, detokeniser and chat template of one model.

    Encodes in worker threads, and renders in processes.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_template: TemplatePool | None,
        workers: int,
        replies: Replies,
        eos_ids: frozenset[int],
        variables: Mapping[str, Any] = NO_VARIABLES,
    ) -> None:
        self.tokenizer = tokenizer
        self.replies = replies
        self.eos_ids = eos_ids
        self._chat_template = chat_template
        self._variables = variables
        self._tokens = token_table(tokenizer)
        self._lanes = Lanes(workers)

    @classmethod
    def load(
        cls,
        model_path: str | Path,
        config_path: str | None,
        workers: int,
        *,
        tool_parser: str = "auto",
        reasoning_parser: str = "auto",
        variables: Mapping[str, Any] = NO_VARIABLES,
    ) -> TextModel:
        """Read the folder. config_path: a tokenizer_config.json or .jinja to use instead of its
        own. tool_parser, reasoning_parser: names of formats (`penstock_router.tools`). variables:
        of the chat template, where a conversation does not set them.
        Raises ValueError that names what is missing or wrong."""
        folder = Path(model_path)
        override = Path(config_path) if config_path else None
        config = tokenizer_config(folder, override)
        source = template_source(folder, config, override)
        tokenizer = Tokenizer.load(folder, override, source)
        added = {token.content: i for i, token in tokenizer.added_tokens().items()}
        replies = Replies.load(
            source,
            config.get("response_template"),
            tool_parser,
            reasoning_parser,
            added,
            tokenizer.special_ids,
        )
        eos_ids = eos_token_ids(folder, config_path)
        if source is None:
            return cls(tokenizer, None, workers, replies, eos_ids)
        named = special_tokens(folder, config) | dict(tokenizer.names)
        script = Script(source, named, tokenizer.control_tokens)
        try:
            pool = TemplatePool(script, workers)
        except TemplateError as error:
            raise ValueError(f"chat template of {folder}: {error}") from error
        return cls(tokenizer, pool, workers, replies, eos_ids, variables)

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
        """Let the worker threads end, and end the processes that render; waits for neither."""
        self._lanes.close()
        if self._chat_template is not None:
            self._chat_template.close()

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

    async def run(self, work: Callable[[], T]) -> T:
        """Do what takes a while in a worker thread. Raises TokenizerError when it never ends."""
        return await self._lanes.run(work)

    async def aside(self, work: Callable[[], T]) -> T:
        """The same for what is no text, such as grammars, so that texts do not wait for it."""
        return await self._lanes.aside(work)

    async def encode(
        self, text: str, add_special_tokens: bool = True, limit: int | None = None
    ) -> Sequence[int]:
        """Token ids of a prompt, special tokens in it included.

        Raises TooManyTokens when there are more than `limit`, and TokenizerError.
        """
        return await self._encode(
            text, limit, lambda: array("I", self.tokenizer.encode(text, add_special_tokens, limit))
        )

    async def spans_json(
        self, text: str, add_special_tokens: bool = True, limit: int | None = None
    ) -> bytes:
        """Tokens of a prompt with their places, as JSON.

        Raises TooManyTokens where there are more than `limit` for certain, and TokenizerError.
        """

        def work() -> bytes:
            return spans_json(text, self.tokenizer.each_span(text, add_special_tokens))

        return await self._encode(text, limit, work)

    async def _encode(self, text: str, limit: int | None, work: Callable[[], T]) -> T:
        def encode() -> T:
            # Nothing is given back behind a text that is refused here: the allocator's lock is
            # the event loop's too, and memory that comes again costs it a fault a page.
            self.tokenizer.check_length(text, limit)
            try:
                return work()
            finally:
                if len(text) > LARGE:
                    give_back()

        return await self._lanes.run(encode, len(text))

    async def render(
        self, conversation: Conversation, with_spans: bool = False, limit: int | None = None
    ) -> Rendered:
        """Text and tokens of a conversation. Raises TemplateError, and what `encode` raises; with
        spans what `spans_json` raises."""
        marked = await self.written(conversation)
        if not with_spans:
            return Rendered(marked.text, await self.encode_marked(marked, limit))

        def work() -> Rendered:
            spans = self.tokenizer.spans_marked(marked)
            ids = [span.id for span in spans]
            return Rendered(marked.text, array("I", ids), spans, spans_json(marked.text, spans))

        return await self._encode(marked.text, limit, work)

    async def written(self, conversation: Conversation) -> MarkedText:
        """What the chat template makes of a conversation. Raises TemplateError."""
        if self._chat_template is None:
            raise TemplateError("template not found")
        page = await self._chat_template.render(conversation.job(self._variables))
        return MarkedText(page.text, tuple((start, stop) for start, stop in page.client))

    async def encode_marked(self, marked: MarkedText, limit: int | None = None) -> Sequence[int]:
        """Its token ids. Raises what `encode` raises."""
        return await self._encode(
            marked.text, limit, lambda: array("I", self.tokenizer.encode_marked(marked, limit))
        )
