"""Requests of OpenAI's routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, WrapValidator, field_validator, model_validator

from penstock_router.api.errors import invalid
from penstock_router.api.options import Options, biases, share, temperature
from penstock_router.api.schema import (
    NEUTRAL,
    ClosedModel,
    Count,
    LogitBias,
    Penalty,
    PositiveInt,
    Priority,
    RepetitionPenalty,
    Share,
    StopSequence,
    TokenId,
    packed,
)
from penstock_router.config import RouterConfig
from penstock_router.request import Sampling
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
    }
)
MAX_VARIABLE_DEPTH = 16
MAX_VARIABLE_NODES = 128


class StreamOptions(ClosedModel):
    """`stream_options` of a request."""

    IGNORED: ClassVar = frozenset({"include_obfuscation"})

    include_usage: bool = False


class OpenAIRequest(ClosedModel):
    """What chat and plain completions have in common."""

    model: Annotated[str, Field(max_length=1024)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: LogitBias | None = None
    max_tokens: PositiveInt | None = None
    n: Annotated[int, Field(ge=1, le=1024)] = 1
    seed: Annotated[int, Field(ge=-(2**63), le=2**64 - 1)] | None = None
    stop: StopSequence | Annotated[list[StopSequence], Field(max_length=1024)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    # Beyond OpenAI's
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None  # -1 and 0: off
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Share | None = None
    ignore_eos: bool = False
    priority: Priority | None = None

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

    def options(self, config: RouterConfig, *, priority: int) -> Options:
        """The same in the server's terms. priority: that of the header, if it has one."""
        if self.n > config.max_best_of:
            raise invalid(f"`n` must be > 0 and <= {config.max_best_of}. Given: {self.n}")
        stop = [self.stop] if isinstance(self.stop, str) else (self.stop or ())
        return Options(
            max_new_tokens=self.new_tokens,
            sampling=self._sampling(),
            seed=self.seed,
            sequences=self.n,
            stop=tuple(stop),
            ignore_eos=self.ignore_eos,
            priority=priority if self.priority is None else self.priority,
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


class TextPart(ClosedModel):
    """A part of a message."""

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


class Message(ClosedModel):
    """A message of a conversation."""

    IGNORED: ClassVar = frozenset({"refusal", "annotations"})
    UNSUPPORTED: ClassVar = {"tool_calls": NEUTRAL, "function_call": NEUTRAL, "audio": NEUTRAL}

    role: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    content: str | list[TextPart] | None = None
    name: Annotated[str, Field(max_length=1024)] | None = None
    tool_call_id: Annotated[str, Field(max_length=1024)] | None = None

    def variables(self) -> dict[str, str]:
        """What the template sees: parts joined, absent fields absent."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        fields = {"name": self.name, "tool_call_id": self.tool_call_id}
        present = {name: value for name, value in fields.items() if value is not None}
        return {"role": self.role, "content": content or "", **present}


class ChatRequest(OpenAIRequest):
    """Body of /v1/chat/completions and /chat_tokenize."""

    IGNORED: ClassVar = HARMLESS
    UNSUPPORTED: ClassVar = {
        "tools": NEUTRAL,
        "functions": NEUTRAL,
        "tool_choice": ("none", "auto"),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
        "reasoning_effort": ("none",),
        "verbosity": (),
        "guideline": (),
        "guided_json": (),
        "guided_regex": (),
        "guided_choice": (),
        "guided_grammar": (),
    }

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool = False
    top_logprobs: Count | None = None
    chat_template_kwargs: dict[str, Any] = {}

    @field_validator("chat_template_kwargs")
    @classmethod
    def _bounded_variables(cls, variables: dict[str, Any]) -> dict[str, Any]:
        reserved = {"messages", "add_generation_prompt", "tools", "documents"} & variables.keys()
        if reserved:
            raise ValueError(f"`chat_template_kwargs` must not set `{min(reserved)}`")
        if any(name.startswith("_") or name.endswith("_token") for name in variables):
            raise ValueError("`chat_template_kwargs` must not set special tokens or private names")
        _check_size(variables)
        return variables

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

    def conversation(self) -> Conversation:
        """What the chat template gets."""
        messages = [message.variables() for message in self.messages]
        return Conversation(messages, self.chat_template_kwargs)


def _check_size(value: Any) -> None:
    """Depth and number of values of `chat_template_kwargs`."""
    nodes = 0
    level = [value]
    for _ in range(MAX_VARIABLE_DEPTH):
        level = [item for parent in level for item in _items(parent)]
        nodes += len(level)
        if nodes > MAX_VARIABLE_NODES:
            raise ValueError(
                f"`chat_template_kwargs` must hold at most {MAX_VARIABLE_NODES} values"
            )
        if not level:
            return
    raise ValueError(f"`chat_template_kwargs` must be at most {MAX_VARIABLE_DEPTH} levels deep")


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


Ids = Annotated[list[TokenId], Field(min_length=1), WrapValidator(packed)]
Text = Annotated[str, Field(min_length=1)]


class CompletionRequest(OpenAIRequest):
    """Body of /v1/completions."""

    IGNORED: ClassVar = HARMLESS
    UNSUPPORTED: ClassVar = {"suffix": NEUTRAL, "echo": NEUTRAL, "best_of": (1,)}

    prompt: Annotated[
        Text
        | Ids
        | Annotated[list[Text], Field(min_length=1)]
        | Annotated[list[Ids], Field(min_length=1)],
        Field(union_mode="left_to_right"),
    ]
    logprobs: Count | None = None

    @property
    def top_n(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | Sequence[int]]:
        """Each prompt as text or as token ids, which are packed."""
        prompt: Any = self.prompt
        return prompt if isinstance(prompt, list) else [prompt]
