"""OpenAI's API, and servers that speak it, by OpenAI's own package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from penstock.lang.backend import Backend, BackendError, Generation, Selection, Unsupported
from penstock.lang.backends.openai_fields import fields, meta
from penstock.lang.backends.packages import needed, refuse
from penstock.lang.choices import Method, Scores
from penstock.lang.prompt import Prompt
from penstock.lang.sampling import Sampling

# Models of OpenAI's own that continue text; all others answer conversations.
TEXT_MODELS = ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002")


class OpenAI(Backend):
    """model_name: of a model of OpenAI's; or the URL of a server, whose first model is taken then.

    is_chat_model: None decides by the program: turns go to /chat/completions, text without turns
    to /completions, which OpenAI's own chat models have not, so that they get it as a user's turn.
    arguments: of `openai.OpenAI`, as base_url and api_key. Raises ImportError without the package,
    BackendError where a server does not answer.
    """

    def __init__(
        self,
        model_name: str,
        is_chat_model: bool | None = None,
        chat_template: None = None,
        is_azure: bool = False,
        *args: Any,
        **arguments: Any,
    ) -> None:
        if chat_template is not None:
            raise ValueError("`chat_template` must be left out: the server applies its own")
        self._openai = needed("openai", "OpenAI")
        url = model_name if model_name.startswith(("http://", "https://")) else None
        if url is not None:
            arguments = {"base_url": url, "api_key": "EMPTY"} | arguments
        make = self._openai.AzureOpenAI if is_azure else self._openai.OpenAI
        self._client: Any = make(*args, **arguments)
        self.model = self._first_model() if url is not None else model_name
        # Servers of one's own have both routes.
        self._has_text = url is not None or "base_url" in arguments or model_name in TEXT_MODELS
        self._is_chat = is_chat_model

    def generate(self, prompt: Prompt, sampling: Sampling) -> Generation:
        answer = self._asked(prompt, sampling)
        shown = [self._shown(choice, answer.usage) for choice in answer.choices]
        texts, metas = [text for text, _ in shown], [told for _, told in shown]
        if sampling.n != 1:
            return Generation(texts, metas)
        return Generation(texts[0], metas[0])

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Generation]:
        refuse("OpenAI, streamed,", tools=sampling.tools)
        text, told = "", {}
        with self._errors():
            options = {"stream": True, "stream_options": {"include_usage": True}}
            with self._asked(prompt, sampling, **options) as events:
                for event in events:
                    if event.usage is not None:
                        told["prompt_tokens"] = event.usage.prompt_tokens
                        told["completion_tokens"] = event.usage.completion_tokens
                    for choice in event.choices:
                        delta = getattr(choice, "delta", None)
                        text += (choice.text if delta is None else delta.content) or ""
                        if choice.finish_reason is not None:
                            told["finish_reason"] = {"type": choice.finish_reason}
                    yield Generation(text, dict(told))

    def select(self, prompt: Prompt, choices: Sequence[str], method: Method) -> Selection:
        if self._chats(prompt):
            raise Unsupported(
                "the chat API returns no log-probabilities of a given text, so choices cannot be "
                "scored in turns by OpenAI; RuntimeEndpoint can"
            )
        refuse("OpenAI", **{method.name: method.alone})
        text = prompt.text
        with self._errors():
            answer = self._client.completions.create(
                model=self.model,
                prompt=[text + choice for choice in choices],
                max_tokens=0,
                echo=True,
                logprobs=1,
                temperature=0,
            )
        own = [_behind(choice.logprobs, len(text)) for choice in answer.choices]
        return Selection(*method(choices, Scores(own)))

    def _asked(self, prompt: Prompt, sampling: Sampling, **more: Any) -> Any:
        refuse(
            "OpenAI", stop_regex=sampling.stop_regex, logprob_start_len=sampling.logprob_start_len
        )
        chat = self._chats(prompt)
        body = fields(sampling, chat=chat) | more
        with self._errors():
            if not chat:
                refuse("OpenAI, without turns,", tools=sampling.tools)
                return self._client.completions.create(model=self.model, prompt=prompt.text, **body)
            return self._client.chat.completions.create(
                model=self.model, messages=conversation(prompt), **body
            )

    def _chats(self, prompt: Prompt) -> bool:
        if self._is_chat is not None:
            return self._is_chat
        return prompt.has_turns or not self._has_text

    def _shown(self, choice: Any, usage: Any) -> tuple[str, dict[str, Any]]:
        message = getattr(choice, "message", None)
        if message is None:
            return choice.text, meta(choice, usage)
        return message.content or "", meta(choice, usage, message)

    def _first_model(self) -> str:
        with self._errors():
            for model in self._client.models.list():
                return str(model.id)
        raise BackendError("the server names no model at /v1/models")

    def _errors(self) -> Any:
        return translated(self._openai.OpenAIError)


class translated:
    """Errors of a package as ours. kind: their base class."""

    def __init__(self, kind: type[BaseException]) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, self._kind):
            status = getattr(error, "status_code", None)
            raise BackendError(str(error), status) from error


def conversation(prompt: Prompt) -> list[dict[str, Any]]:
    """A prompt as messages. The assistant's turn that is open is the last one, where it has text:
    servers that can go on from it do. Raises Unsupported for another turn that is open."""
    if not prompt.has_turns:
        return [{"role": "user", "content": prompt.text}]
    messages = [message.shown for message in prompt.messages]
    if prompt.role not in (None, "assistant"):
        raise Unsupported(
            f"this API generates only the assistant's turns, not text of `{prompt.role}`; "
            "RuntimeEndpoint can"
        )
    if prompt.text:
        messages.append({"role": "assistant", "content": prompt.text})
    return messages


def _behind(logprobs: Any, place: int) -> list[list[Any]]:
    """Entries of tokens that reach beyond a place of the text."""
    entries = []
    rows = zip(logprobs.tokens, logprobs.token_logprobs, logprobs.text_offset, strict=True)
    for token, value, offset in rows:
        if offset + len(token) > place and value is not None:
            entries.append([value, None, token])
    if not entries:
        raise BackendError("the server returned no log-probabilities of the choices")
    return entries
