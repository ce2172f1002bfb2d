"""Requests of OpenAI's routes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from penstock_router.api.errors import invalid
from penstock_router.api.openai_tools import (
    TOOL_PROMPT,
    CalledFunction,
    CallObject,
    Calls,
    Functions,
    Tools,
    told,
    toolbox,
)
from penstock_router.api.options import Names, Options, biases, share, temperature
from penstock_router.api.schema import (
    NEUTRAL,
    AtMost,
    CacheSalt,
    ClientObject,
    Count,
    Integer,
    LogitBias,
    Penalty,
    PositiveInt,
    Priority,
    Reading,
    RepetitionPenalty,
    Seconds,
    Share,
    StopSequence,
    StopSequences,
    packed,
)
from penstock_router.api.structured import UNSTRUCTURED, Structured
from penstock_router.api.vllm_schema import VllmFields
from penstock_router.config import RouterConfig
from penstock_router.limits import MAX_TOP_LOGPROBS
from penstock_router.request import Sampling
from penstock_router.templates.variables import RESERVED
from penstock_router.text import Conversation
from penstock_router.tools.definition import Toolbox
from penstock_router.tools.schema import unenforced

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
        "length_penalty",  # of beams
        "spaces_between_special_tokens",  # fast tokenizers put none there
    }
)
# Limits of OpenAI's API, whatever those of TGI's are set to. What is asked for at once must also
# fit the permits.
MAX_PROMPTS = 128
MAX_CHOICES = 128
MAX_STOP_SEQUENCES = 16
MOST_PROMPTS = 1024  # whatever the operator allows
MAX_TOOL_PROMPT = 65_536  # characters
MAX_VARIABLE_DEPTH = 16
MAX_VARIABLE_NODES = 128


class StreamOptions(ClientObject):
    """`stream_options` of a request."""

    PATH: ClassVar = "stream_options."
    IGNORED: ClassVar = frozenset({"include_obfuscation"})

    include_usage: bool = False
    continuous_usage_stats: bool = False  # vLLM's: with include_usage, in every chunk


class OpenAIRequest(VllmFields, Structured):
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
    def usage_in_chunks(self) -> bool:
        """Every chunk says what was used until then."""
        options = self.stream_options
        return self.include_usage and options is not None and options.continuous_usage_stats

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
            rules=self.rules(),
            show_special=not self.skip_special_tokens,
            ignore_eos=self.ignore_eos,
            truncate=self.longest_prompt(),
            prompt_logprobs=self.prompt_logprobs is not None,
            prompt_top_n=self.prompt_logprobs or 0,
            priority=priority if self.priority is None else self.priority,
            grammar=self.grammar(),
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
    UNSUPPORTED: ClassVar = {"audio": NEUTRAL}

    role: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    content: str | Annotated[list[TextPart], AtMost(4096)] = ""
    tool_calls: Calls = []
    function_call: CalledFunction | None = None  # the older shape of a call
    name: Annotated[str, Field(max_length=1024)] | None = None
    tool_call_id: Annotated[str, Field(max_length=1024)] | None = None
    # What a model thought before it answered, under its older and its newer name.
    reasoning_content: str | None = None
    reasoning: str | None = None

    def check(self, place: int) -> None:
        """Raises ValueError unless it says or calls something. place: among the messages."""
        calls = self.tool_calls or self.function_call is not None
        if calls and self.role != "assistant":
            raise ValueError(f"`messages.{place}.tool_calls` is only for messages of the assistant")
        if not calls and "content" not in self.model_fields_set:
            raise ValueError(f"missing field `messages.{place}.content`")
        self.variables()

    def variables(self) -> dict[str, Any]:
        """What the template sees: absent fields absent. Raises ValueError for arguments that are
        no JSON."""
        content = self.content
        calls = [call.variables() for call in self.tool_calls]
        if self.function_call is not None:
            calls.append(CallObject(id=self.name or "", function=self.function_call).variables())
        thoughts = self.reasoning if self.reasoning_content is None else self.reasoning_content
        fields = {
            # Results of functions, as calls of functions, have had another name.
            "role": "tool" if self.role == "function" else self.role,
            "tool_calls": calls or None,
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
        **UNSTRUCTURED,
        "modalities": (["text"],),
        "audio": (),
        "web_search_options": (),
        "documents": NEUTRAL,
        "chat_template": (),
        "add_special_tokens": (False,),
    }

    messages: Annotated[list[Message], Field(min_length=1), AtMost(4096)]
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool = False
    top_logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    chat_template_kwargs: dict[str, Any] = {}
    guideline: str | None = None  # TGI's name for a variable of the template
    tools: Tools | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    tool_prompt: Annotated[str, Field(max_length=MAX_TOOL_PROMPT)] | None = None  # TGI's
    functions: Functions | None = None  # the older shape of tools
    function_call: str | dict[str, Any] | None = None
    reasoning_effort: Annotated[str, Field(pattern=r"^[a-z_]{1,16}$")] | None = None
    enable_thinking: bool | None = None
    include_reasoning: bool = True
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    echo: bool = False  # vLLM's: the message that is continued is part of the answer

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
    def _tools_are_right(self, info: ValidationInfo) -> Self:
        reading = info.context or Reading()
        for tool in self.toolbox().tools:
            for keyword in () if tool.strict else unenforced(tool.parameters):
                reading.ignore(f"tools[].function.parameters.{keyword}")
        for place, message in enumerate(self.messages):
            message.check(place)
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

    @property
    def echoed(self) -> str:
        """The text of the last message, where the answer repeats it: one that has the role of the
        answer."""
        last = self.messages[-1]
        if not self.echo or not (last.role == "assistant" or self.conversation().continues):
            return ""
        if isinstance(last.content, str):
            return last.content
        return "".join(part.text for part in last.content)

    def toolbox(self) -> Toolbox:
        """The tools that the model may call. Raises ValueError, but not once the body is checked"""
        older = self.functions is not None or self.function_call is not None
        return toolbox(
            self.tools,
            self.functions,
            self.function_call if older else self.tool_choice,
            choice_field="function_call" if older else "tool_choice",
            parallel=self.parallel_tool_calls,
        )

    def conversation(self, shows_tools: bool = True) -> Conversation:
        """What the chat template gets. shows_tools: whether it shows tools; else words do."""
        messages: Sequence[Mapping[str, Any]] = [message.variables() for message in self.messages]
        tools = self.toolbox().shown
        if tools is not None and not shows_tools:
            messages = told(messages, tools, self.tool_prompt or TOOL_PROMPT)
        elif tools is not None and self.tool_prompt:
            messages = told(messages, None, self.tool_prompt)
        return Conversation(
            messages,
            self._variables(),
            self.add_generation_prompt,
            self.continue_final_message,
            tools if shows_tools else None,
        )

    def _variables(self) -> dict[str, Any]:
        named: dict[str, Any] = {} if self.guideline is None else {"guideline": self.guideline}
        if self.reasoning_effort is not None:
            named |= thinking(self.reasoning_effort != "none")
            named["reasoning_effort"] = self.reasoning_effort
        if self.enable_thinking is not None:
            named |= thinking(self.enable_thinking)
        return named | self.chat_template_kwargs


def thinking(wanted: bool) -> dict[str, Any]:
    """What templates call the switch for reasoning."""
    return {"enable_thinking": wanted, "thinking": wanted}


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
        **UNSTRUCTURED,
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
