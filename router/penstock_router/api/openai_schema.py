"""Requests of OpenAI's routes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainValidator, WithJsonSchema, field_validator, model_validator

from penstock_router.api.errors import invalid
from penstock_router.api.options import Names, Options, biases, share, temperature
from penstock_router.api.schema import (
    NEUTRAL,
    UNSUPPORTED,
    AtMost,
    CacheSalt,
    ClientObject,
    Count,
    Integer,
    LogitBias,
    Penalty,
    PositiveInt,
    Priority,
    RepetitionPenalty,
    Seconds,
    Share,
    StopSequence,
    StopSequences,
    packed,
)
from penstock_router.config import RouterConfig
from penstock_router.limits import MAX_TOP_LOGPROBS
from penstock_router.request import Sampling
from penstock_router.templates.variables import RESERVED
from penstock_router.text import Conversation

# What clients and gateways send about themselves, or about where the answer is kept.
HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",  # means something only together with tools
        "tool_prompt",
        "length_penalty",  # of beams
        "spaces_between_special_tokens",  # which are never shown
    }
)
# Limits of OpenAI's API, whatever those of TGI's are set to. What is asked for at once must also
# fit the permits.
MAX_PROMPTS = 128
MAX_CHOICES = 128
MAX_STOP_SEQUENCES = 16
MOST_PROMPTS = 1024  # whatever the operator allows
MAX_VARIABLE_DEPTH = 16
MAX_VARIABLE_NODES = 128


class StreamOptions(ClientObject):
    """`stream_options` of a request."""

    PATH: ClassVar = "stream_options."
    IGNORED: ClassVar = frozenset({"include_obfuscation"})

    include_usage: bool = False


class OpenAIRequest(ClientObject):
    """What chat and plain completions have in common."""

    model: Annotated[str, Field(max_length=1024)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: LogitBias | None = None
    max_tokens: PositiveInt | None = None
    n: Annotated[Integer, Field(ge=1, le=MAX_CHOICES)] = 1
    seed: Annotated[Integer, Field(ge=-(2**63), le=2**64 - 1)] | None = None
    stop: StopSequence | StopSequences | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    # Beyond OpenAI's
    top_k: Annotated[Integer, Field(ge=-1, le=2**31 - 1)] | None = None  # -1 and 0: off
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Share | None = None
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    priority: Priority | None = None
    cache_salt: CacheSalt | None = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` is only allowed when `stream` is true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def top_n(self) -> int | None:
        """Most likely tokens asked for; None when no log-probabilities are wanted at all."""
        raise NotImplementedError

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """All stop sequences."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def names(self) -> Names:
        """What errors call the prompt and the number of tokens."""
        raise NotImplementedError

    def completed(self, defaults: Mapping[str, float]) -> Self:
        """The same, with defaults for the fields that it does not give or gives as null."""
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return self.model_copy(update=missing) if missing else self

    def options(self, config: RouterConfig, *, priority: int) -> Options:
        """The same in the server's terms. priority: that of the header, if it has one."""
        stop, most = self.stops, max(MAX_STOP_SEQUENCES, config.max_stop_sequences)
        if len(stop) > most:
            raise invalid(
                f"`stop` supports up to {most} stop sequences. Given: {len(stop)}. "
                "`--max-stop-sequences` raises the limit"
            )
        return Options(
            names=self.names,
            max_new_tokens=self.new_tokens,
            sampling=self._sampling(),
            seed=self.seed,
            sequences=self.n,
            stop=stop,
            keep_stop=self.include_stop_str_in_output,
            ignore_eos=self.ignore_eos,
            priority=priority if self.priority is None else self.priority,
            cache_salt=self.cache_salt,
        )

    def _sampling(self) -> Sampling:
        return Sampling(
            temperature=temperature(1.0 if self.temperature is None else self.temperature),
            top_k=max(self.top_k or 0, 0),
            top_p=share(self.top_p),
            typical_p=share(self.typical_p),
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=biases(self.logit_bias),
            logprobs=self.top_n is not None,
            top_n=self.top_n or 0,
        )


class TextPart(ClientObject):
    """A part of a message."""

    PATH: ClassVar = "messages[].content[]."

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") not in (None, "text"):
            raise ValueError(
                "`content` may hold parts of the type `text` only: this model reads no images, "
                "sound or files"
            )
        return data


class Message(ClientObject):
    """A message of a conversation."""

    PATH: ClassVar = "messages[]."
    IGNORED: ClassVar = frozenset({"refusal", "annotations"})
    UNSUPPORTED: ClassVar = {"tool_calls": NEUTRAL, "function_call": NEUTRAL, "audio": NEUTRAL}

    role: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    content: str | Annotated[list[TextPart], AtMost(4096)]
    name: Annotated[str, Field(max_length=1024)] | None = None
    tool_call_id: Annotated[str, Field(max_length=1024)] | None = None
    # What a model thought before it answered, under its older and its newer name.
    reasoning_content: str | None = None
    reasoning: str | None = None

    def variables(self) -> dict[str, Any]:
        """What the template sees: absent fields absent."""
        content = self.content
        thoughts = self.reasoning if self.reasoning_content is None else self.reasoning_content
        fields = {
            "role": self.role,
            "content": [part.model_dump() for part in content]
            if isinstance(content, list)
            else content,
            "name": self.name,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": thoughts,  # templates know one or the other
            "reasoning": thoughts,
        }
        return {name: value for name, value in fields.items() if value is not None}


class ChatRequest(OpenAIRequest):
    """Body of /v1/chat/completions and /chat_tokenize."""

    IGNORED: ClassVar = HARMLESS
    UNSUPPORTED: ClassVar = {
        **UNSUPPORTED,
        "tools": NEUTRAL,
        "functions": NEUTRAL,
        "tool_choice": ("none", "auto"),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "web_search_options": (),
        "documents": NEUTRAL,
        "chat_template": (),
        "add_special_tokens": (False,),
        "echo": (False,),
    }
    WAIVED: ClassVar = {
        "tools": ("tool_choice", "none"),
        "functions": ("function_call", "none"),
    }

    messages: Annotated[list[Message], Field(min_length=1), AtMost(4096)]
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool = False
    top_logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    chat_template_kwargs: dict[str, Any] = {}
    guideline: str | None = None  # TGI's name for a variable of the template
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @field_validator("chat_template_kwargs", mode="before")
    @classmethod
    def _bounded_variables(cls, variables: Any) -> Any:
        if isinstance(variables, dict):
            _check_size(variables)
            for name in variables:
                _check_variable(name)
        return variables

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.add_generation_prompt and self.continue_final_message:
            raise ValueError(
                "`add_generation_prompt` and `continue_final_message` must not both be true"
            )
        return self

    @model_validator(mode="after")
    def _top_logprobs_need_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("`logprobs` must be true when `top_logprobs` is given")
        return self

    @property
    def top_n(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def names(self) -> Names:
        sent = "max_completion_tokens" if self.max_completion_tokens else "max_tokens"
        return Names("messages", sent, openai=True)

    def conversation(self) -> Conversation:
        """What the chat template gets."""
        messages = [message.variables() for message in self.messages]
        return Conversation(
            messages, self._variables(), self.add_generation_prompt, self.continue_final_message
        )

    def _variables(self) -> dict[str, Any]:
        named = {} if self.guideline is None else {"guideline": self.guideline}
        return named | self.chat_template_kwargs


def _check_variable(name: str) -> None:
    """Raises ValueError for what `chat_template_kwargs` must not set."""
    if name in RESERVED:
        raise ValueError(f"`chat_template_kwargs` must not set `{name}`")
    if name.startswith("_") or name.endswith("_token"):
        raise ValueError("`chat_template_kwargs` must not set special tokens or private names")
    if not name.isidentifier():
        raise ValueError("`chat_template_kwargs` must hold names that a template can use")


def _check_size(variables: dict[str, Any]) -> None:
    """Depth and number of values of `chat_template_kwargs`."""
    nodes = 0
    level: list[Any] = [variables]
    for _ in range(MAX_VARIABLE_DEPTH):
        parents = [value for value in level if isinstance(value, dict | list)]
        nodes += sum(map(len, parents))
        if nodes > MAX_VARIABLE_NODES:
            raise ValueError(
                f"`chat_template_kwargs` must hold at most {MAX_VARIABLE_NODES} values"
            )
        if not parents:
            return
        level = [item for parent in parents for item in _items(parent)]
    raise ValueError(f"`chat_template_kwargs` must be at most {MAX_VARIABLE_DEPTH} levels deep")


def _items(parent: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return parent.values() if isinstance(parent, dict) else parent


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
    UNSUPPORTED: ClassVar = {
        **UNSUPPORTED,
        "suffix": NEUTRAL,
        "best_of": (1,),
        "response_format": ({"type": "text"},),
        "add_special_tokens": (True,),
    }

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
    # TGI's parameters, which @huggingface/inference sends here
    return_full_text: bool = False  # the same as `echo`
    stop_sequences: StopSequences = []
    max_time: Seconds | None = None
    truncate: Count | None = None
    do_sample: bool = True

    @model_validator(mode="after")
    def _full_text_is_an_echo(self) -> Self:
        request = self.model_copy(update={"echo": True}) if self.return_full_text else self
        if self.max_tokens == 0 and not request.echo:
            raise ValueError("`max_tokens` must be strictly positive unless `echo` is true")
        if request.echo and self.truncate is not None:
            raise ValueError("`truncate` must not be given with `echo` or `return_full_text`")
        return request

    @property
    def top_n(self) -> int | None:
        return self.logprobs

    @property
    def names(self) -> Names:
        return Names("prompt", "max_tokens", openai=True)

    def options(self, config: RouterConfig, *, priority: int) -> Options:
        options = super().options(config, priority=priority)
        scored = self.echo and self.logprobs is not None
        sampling = options.sampling
        return dataclasses.replace(
            options,
            sampling=sampling if self.do_sample else dataclasses.replace(sampling, temperature=0.0),
            truncate=self.truncate,
            max_time=self.max_time,
            prompt_logprobs=scored,
            prompt_top_n=self.logprobs or 0 if scored else 0,
        )

    @property
    def stops(self) -> tuple[str, ...]:
        return (*super().stops, *self.stop_sequences)

    @property
    def prompts(self) -> list[str | Sequence[int]]:
        """Each prompt as text or as token ids, which are packed."""
        return self.prompt
