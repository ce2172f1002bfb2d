"""Requests of OpenAI's plain completions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PlainValidator, WithJsonSchema, field_validator, model_validator

from penstock_router.api.openai_request import HARMLESS, MAX_CHOICES, OpenAIRequest
from penstock_router.api.options import Names, Options
from penstock_router.api.schema_types import Count, Integer, Seconds, StopSequences, packed
from penstock_router.api.structured import UNSTRUCTURED
from penstock_router.config import RouterConfig
from penstock_router.limits import MAX_TOP_LOGPROBS

MAX_PROMPTS = 128  # OpenAI's limit; what is asked for at once must also fit the permits
MOST_PROMPTS = 1024  # whatever the operator allows

_PROMPT_RULE = (
    "`prompt` must be a string, a list of strings, a list of token ids or a list of lists of "
    "token ids, none of them empty"
)
_TEXT_SCHEMA = {"type": "string", "minLength": 1}
_IDS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_MANY = {"type": "array", "minItems": 1, "maxItems": MAX_PROMPTS}


def _prompts(value: Any) -> list[str | Sequence[int]]:
    """Each prompt as text or as token ids, which are packed."""
    if not isinstance(value, list) or not value or isinstance(value[0], int):
        return [_prompt(value)]
    if len(value) > MOST_PROMPTS:
        raise ValueError(f"`prompt` must hold at most {MOST_PROMPTS} prompts. Given: {len(value)}")
    if len(set(map(type, value))) > 1:
        raise ValueError(_PROMPT_RULE)
    return [_prompt(item) for item in value]


def _prompt(value: Any) -> str | Sequence[int]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value:
        try:
            return packed(value)
        except TypeError:
            raise ValueError(_PROMPT_RULE) from None
    raise ValueError(_PROMPT_RULE)


class CompletionRequest(OpenAIRequest):
    """Body of /v1/completions."""

    IGNORED: ClassVar = HARMLESS
    UNSUPPORTED: ClassVar = UNSTRUCTURED

    prompt: Annotated[
        list[str | Sequence[int]],
        PlainValidator(_prompts),
        WithJsonSchema(
            {
                "anyOf": [
                    _TEXT_SCHEMA,
                    _IDS_SCHEMA,
                    {**_MANY, "items": _TEXT_SCHEMA},
                    {**_MANY, "items": _IDS_SCHEMA},
                ]
            }
        ),
    ]
    max_tokens: Count | None = None  # 0 only with `echo`
    logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool = False  # the prompt is part of the answer
    best_of: Annotated[Integer, Field(ge=1, le=MAX_CHOICES)] | None = None  # of which n are shown
    suffix: str | None = None
    add_special_tokens: bool = True
    # TGI's parameters, which @huggingface/inference sends here
    return_full_text: bool = False  # the same as `echo`
    stop_sequences: StopSequences = []
    max_time: Seconds | None = None
    truncate: Count | None = None
    do_sample: bool = True

    @field_validator("suffix")
    @classmethod
    def _nothing_is_inserted(cls, suffix: str | None) -> str | None:
        if suffix:
            raise ValueError(
                "`suffix` must be empty: this server continues prompts and inserts no text before "
                "another one; a model that can has its own tokens for it in the prompt"
            )
        return suffix

    @model_validator(mode="after")
    def _best_of_more(self) -> Self:
        if self.candidates < self.n:
            raise ValueError(f"`best_of` must be at least `n`, {self.n}. Given: {self.best_of}")
        if self.candidates > self.n and self.stream:
            raise ValueError("`best_of` must not be greater than `n` when `stream` is true")
        return self

    @model_validator(mode="after")
    def _full_text_is_an_echo(self) -> Self:
        request = self.model_copy(update={"echo": True}) if self.return_full_text else self
        if self.max_tokens == 0 and not request.echo:
            raise ValueError("`max_tokens` must be strictly positive unless `echo` is true")
        if request.echo:
            for name in ("truncate", "truncate_prompt_tokens"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"`{name}` must not be given with `echo` or `return_full_text`"
                    )
        return request

    @property
    def top_n(self) -> int | None:
        return self.logprobs

    @property
    def names(self) -> Names:
        return Names("prompt", "max_tokens", openai=True)

    def options(self, config: RouterConfig, *, priority: int) -> Options:
        options = super().options(config, priority=priority)
        sampling = options.sampling
        if not self.do_sample:
            sampling = dataclasses.replace(sampling, temperature=0.0)
        scored = self.echo and self.logprobs is not None
        if scored:
            most = max(self.logprobs or 0, options.prompt_top_n)
            options = dataclasses.replace(options, prompt_logprobs=True, prompt_top_n=most)
        if self.candidates > self.n:  # the best have the highest log-probability
            sampling = dataclasses.replace(sampling, logprobs=True)
        return dataclasses.replace(
            options,
            sampling=sampling,
            sequences=self.candidates,
            truncate=self.longest_prompt() if self.truncate is None else self.truncate,
            max_time=self.max_time,
        )

    @property
    def candidates(self) -> int:
        """Sequences a prompt, of which `n` are shown."""
        return self.n if self.best_of is None else self.best_of

    @property
    def stops(self) -> tuple[str, ...]:
        return (*super().stops, *self.stop_sequences)

    @property
    def prompts(self) -> list[str | Sequence[int]]:
        """Each prompt as text or as token ids, which are packed."""
        return self.prompt
