"""Requests of OpenAI's /v1/responses, and the same as chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_request import HARMLESS
from penstock_router.api.schema import NEUTRAL, ClientObject, parse
from penstock_router.api.schema_types import AtMost, Integer, PositiveInt, Priority, Share
from penstock_router.api.structured import Asked, flat_format
from penstock_router.api.time_limit import TimeLimited
from penstock_router.limits import MAX_TOP_LOGPROBS
from penstock_router.tools.definition import MAX_TOOLS, Tool, check_size

MAX_ITEMS = 4096
MAX_METADATA = 16
Name = Annotated[str, Field(max_length=1024)]
_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text", "refusal")
_ROLES = ("user", "assistant", "system", "developer")


class InputItem(ClientObject):
    """An item of `input`: a message, a call, its output, or what the model thought."""

    PATH: ClassVar = "input[]."
    IGNORED: ClassVar = frozenset({"id", "status", "phase", "encrypted_content", "namespace"})

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Name | None = None
    content: str | Annotated[list[dict[str, Any]], AtMost(MAX_ITEMS)] | None = None
    summary: Annotated[list[dict[str, Any]], AtMost(MAX_ITEMS)] = []
    call_id: Name | None = None
    name: Name | None = None
    arguments: str | None = None
    output: str | Annotated[list[dict[str, Any]], AtMost(MAX_ITEMS)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        kind = data.get("type") if isinstance(data, dict) else None
        if kind is not None and kind not in cls.model_fields["type"].annotation.__args__:  # type: ignore[union-attr]
            raise ValueError(
                "`input[].type` may be `message`, `function_call`, `function_call_output` or "
                "`reasoning`: this server keeps no items and runs no tools of its own"
            )
        return data

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {
            "message": ("role", "content"),
            "function_call": ("call_id", "name", "arguments"),
            "function_call_output": ("call_id", "output"),
            "reasoning": (),
        }[self.type]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"missing field `input[].{name}`")
        if self.type == "message" and self.role not in _ROLES:
            raise ValueError(f"`input[].role` must be one of {', '.join(_ROLES)}")
        for name in ("content", "output", "summary"):
            text_of(getattr(self, name), f"input[].{name}[]")
        return self


def text_of(content: str | Sequence[Mapping[str, Any]] | None, path: str) -> str:
    """The text of a string or of parts. Raises ValueError for parts that are no text."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content:
        if part.get("type", "text") not in _PARTS:
            raise ValueError(
                f"`{path}.type` may be `input_text` or `output_text`: this model reads no images, "
                "sound or files"
            )
        text = part.get("text", part.get("refusal"))
        if not isinstance(text, str):
            raise ValueError(f"`{path}.text` must be a string")
        texts.append(text)
    return "".join(texts)


class ResponseTool(ClientObject):
    """An entry of `tools`."""

    PATH: ClassVar = "tools[]."
    IGNORED: ClassVar = frozenset({"defer_loading", "allowed_callers", "output_schema"})

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_functions(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") not in (None, "function"):
            raise ValueError(
                "`tools[].type` must be `function`: this server runs no tools of its own"
            )
        return data


class TextConfig(ClientObject):
    """`text`: the form of the answer."""

    PATH: ClassVar = "text."
    IGNORED: ClassVar = frozenset({"verbosity"})

    format: dict[str, Any] | None = None


class ReasoningConfig(ClientObject):
    """`reasoning`."""

    PATH: ClassVar = "reasoning."
    IGNORED: ClassVar = frozenset({"summary", "generate_summary", "context", "mode"})

    effort: Annotated[str, Field(pattern=r"^[a-z_]{1,16}$")] | None = None


class ResponsesRequest(TimeLimited):
    """Body of /v1/responses."""

    IGNORED: ClassVar = HARMLESS - {"metadata", "parallel_tool_calls"} | {
        "store",  # nothing is, and the answer says so
        "stream_options",
        "max_tool_calls",  # of tools of the server's own
        "prompt_cache_options",
        "context_management",
        "moderation",
    }
    UNSUPPORTED: ClassVar = {"background": NEUTRAL, "prompt": (), "image": ()}

    model: Annotated[str, Field(max_length=1024)] | None = None
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[InputItem], Field(min_length=1), AtMost(MAX_ITEMS)]
    )
    instructions: str | None = None
    max_output_tokens: PositiveInt | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    top_logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream: bool = False
    tools: Annotated[list[ResponseTool], AtMost(MAX_TOOLS)] = []
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    text: TextConfig = TextConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    include: Annotated[list[Annotated[str, Field(max_length=64)]], AtMost(32)] = []
    metadata: Annotated[dict[str, Any], Field(max_length=MAX_METADATA)] | None = None
    truncation: Literal["auto", "disabled"] = "disabled"
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    # Beyond OpenAI's, as chat has them
    seed: Annotated[Integer, Field(ge=-(2**63), le=2**64 - 1)] | None = None
    top_k: Annotated[Integer, Field(ge=-1, le=2**31 - 1)] | None = None
    priority: Priority | None = None
    chat_template_kwargs: dict[str, Any] = {}

    @field_validator("previous_response_id", "conversation")
    @classmethod
    def _stateless(cls, value: object) -> object:
        raise ValueError(
            "`previous_response_id` and `conversation` are not supported: this server keeps no "
            "responses. Send the items of the conversation as `input`"
        )

    @model_validator(mode="after")
    def _tools_are_sound(self) -> Self:
        check_size(tool.parameters for tool in self.tools)
        for place, tool in enumerate(self.tools):
            strict = bool(tool.strict)
            Tool.checked(
                tool.name, tool.description, tool.parameters, strict, path=f"tools[{place}]"
            )
        return self

    @property
    def wants_logprobs(self) -> bool:
        return "message.output_text.logprobs" in self.include

    def chat(self) -> ChatRequest:
        """The same as a request of chat. Raises ApiError."""
        body = {
            "model": self.model,
            "messages": self._messages(),
            "max_completion_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": self.seed,
            "stream": self.stream,
            "logprobs": self.wants_logprobs,
            "top_logprobs": self.top_logprobs if self.wants_logprobs else None,
            "tools": [_function(tool) for tool in self.tools] or None,
            "tool_choice": _choice(self.tool_choice),
            "parallel_tool_calls": self.parallel_tool_calls,
            "reasoning_effort": self.reasoning.effort,
            "priority": self.priority,
            "chat_template_kwargs": self.chat_template_kwargs,
        }
        return parse(ChatRequest, body)

    def grammar(self) -> Asked | None:
        """What the answer is held to. Raises ApiError."""
        return flat_format(self.text.format, "text.format")

    def _messages(self) -> list[dict[str, Any]]:
        items = self.input
        if isinstance(items, str):
            items = [InputItem(role="user", content=items)]
        messages: list[dict[str, Any]] = []
        if self.instructions:
            messages.append({"role": "system", "content": self.instructions})
        names = {item.call_id: item.name for item in items if item.type == "function_call"}
        for item in items:
            match item.type:
                case "message" if item.role != "assistant":
                    said = {"role": item.role, "content": text_of(item.content, "")}
                    messages.append(said)
                case "function_call_output":
                    said = {"role": "tool", "tool_call_id": item.call_id}
                    said |= {"content": text_of(item.output, ""), "name": names.get(item.call_id)}
                    messages.append(said)
                case _:
                    _join(messages, item)
        return messages


def _join(messages: list[dict[str, Any]], item: InputItem) -> None:
    """What an assistant thought, said and called one after the other is one message of it."""
    last = messages[-1] if messages else {}
    calls = last.get("tool_calls", [])
    if last.get("role") != "assistant" or (calls and item.type != "function_call"):
        last = {"role": "assistant", "content": ""}
        messages.append(last)
    match item.type:
        case "message":
            last["content"] += text_of(item.content, "")
        case "reasoning":
            thoughts = text_of(item.content, "") or text_of(item.summary, "")
            last["reasoning_content"] = last.get("reasoning_content", "") + thoughts
        case _:
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            last.setdefault("tool_calls", []).append(call)


def _function(tool: ResponseTool) -> dict[str, Any]:
    function = tool.model_dump(include={"name", "description", "parameters", "strict"})
    return {"type": "function", "function": function}


def _choice(choice: str | dict[str, Any] | None) -> Any:
    match choice:
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
            listed = [{"function": {"name": tool.get("name")}} for tool in tools if tool]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": listed}}
    return choice
