"""Any provider that LiteLLM speaks to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.lang.backend import Backend, Generation
from penstock.lang.backends.openai import conversation, translated
from penstock.lang.backends.openai_fields import fields, meta
from penstock.lang.backends.packages import needed, refuse
from penstock.lang.prompt import Prompt
from penstock.lang.sampling import Sampling


class LiteLLM(Backend):
    """model_name: as LiteLLM names it, `provider/model`. arguments: of `litellm.completion`, as
    api_base and api_key. Raises ImportError without the package."""

    def __init__(self, model_name: str, **arguments: Any) -> None:
        self._package: Any = needed("litellm", "LiteLLM")
        self._arguments = arguments
        self.model = model_name

    def generate(self, prompt: Prompt, sampling: Sampling) -> Generation:
        with self._errors():
            answer = self._package.completion(**self._body(prompt, sampling))
        texts = [choice.message.content or "" for choice in answer.choices]
        metas = [meta(choice, answer.usage, choice.message) for choice in answer.choices]
        return Generation(texts, metas) if sampling.n != 1 else Generation(texts[0], metas[0])

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Generation]:
        refuse("LiteLLM, streamed,", tools=sampling.tools)
        text, told = "", {}
        with self._errors():
            for event in self._package.completion(**self._body(prompt, sampling), stream=True):
                for choice in event.choices:
                    text += choice.delta.content or ""
                    if choice.finish_reason is not None:
                        told["finish_reason"] = {"type": choice.finish_reason}
                yield Generation(text, dict(told))

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        refuse("LiteLLM", stop_regex=sampling.stop_regex)
        body = {"model": self.model, "messages": conversation(prompt), **self._arguments}
        return body | fields(sampling, chat=True)

    def _errors(self) -> Any:
        return translated(self._package.exceptions.openai.OpenAIError)
