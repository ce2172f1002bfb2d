"""Requests of Anthropic's /v1/messages, and the same as OpenAI's chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import orjson
from pydantic import Field, model_validator

from penstock_router.api.openai_chat import MAX_BUDGET, ChatRequest
from penstock_router.api.schema import NEUTRAL, ClientObject, parse
from penstock_router.api.schema_types import (
    AtMost,
    Integer,
    PositiveInt,
    Priority,
    Share,
    StopSequence,
)
from penstock_router.api.structured import Asked, flat_format
from penstock_router.api.time_limit import TimeLimited
from penstock_router.tools.definition import MAX_TOOLS, Tool, check_size

Name = Annotated[str, Field(max_length=1024)]
MAX_BLOCKS = 4096
MAX_STOPS = 256


def _only(kinds: tuple[str, ...], path: str, data: Any) -> Any:
    kind = data.get("type") if isinstance(data, dict) else None
    if isinstance(kind, str) and kind not in kinds:
        known = ", ".join(f"`{one}`" for one in kinds)
        raise ValueError(
            f"`{path}.type` must be one of {known}: this model reads text alone, and this server "
            "runs no tools of its own"
        )
    return data


class TextBlock(ClientObject):
    """Text of `system`, or of a tool's result."""

    PATH: ClassVar = "content[]."
    IGNORED: ClassVar = frozenset({"cache_control", "citations"})

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        return _only(("text",), "content[]", data)


class ContentBlock(ClientObject):
    """A part of a message."""

    PATH: ClassVar = "messages[].content[]."
    IGNORED: ClassVar = frozenset({"cache_control", "citations", "signature", "data", "caller"})

    type: Literal["text", "thinking", "redacted_thinking", "tool_use", "tool_result"]
    text: str | None = None
    thinking: str | None = None
    id: Name | None = None
    name: Name | None = None
    input: dict[str, Any] | None = None
    tool_use_id: Name | None = None
    content: str | Annotated[list[TextBlock], AtMost(MAX_BLOCKS)] | None = None
    is_error: bool = False

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        kinds = ("text", "thinking", "redacted_thinking", "tool_use", "tool_result")
        return _only(kinds, "messages[].content[]", data)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {
            "text": ("text",),
            "thinking": ("thinking",),
            "redacted_thinking": (),
            "tool_use": ("id", "name", "input"),
            "tool_result": ("tool_use_id",),
        }[self.type]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"missing field `messages[].content[].{name}`")
        return self


class AnthropicMessage(ClientObject):
    """A message of a conversation."""

    PATH: ClassVar = "messages[]."

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[ContentBlock], AtMost(MAX_BLOCKS)]

    @property
    def blocks(self) -> Sequence[ContentBlock]:
        if isinstance(self.content, str):
            return [ContentBlock(type="text", text=self.content)]
        return self.content


class AnthropicTool(ClientObject):
    """An entry of `tools`."""

    PATH: ClassVar = "tools[]."
    IGNORED: ClassVar = frozenset(
        {"cache_control", "defer_loading", "allowed_callers", "input_examples",
         "eager_input_streaming"}
    )  # fmt: skip

    type: Literal["custom"] = "custom"
    name: Name
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _own(cls, data: Any) -> Any:
        return _only(("custom",), "tools[]", data)


class ToolChoice(ClientObject):
    """`tool_choice`."""

    PATH: ClassVar = "tool_choice."

    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool = False

    @property
    def of_chat(self) -> Any:
        """The same in the words of OpenAI's chat."""
        if self.type == "tool":
            return {"type": "function", "function": {"name": self.name or ""}}
        return {"any": "required"}.get(self.type, self.type)


class Thinking(ClientObject):
    """`thinking`."""

    PATH: ClassVar = "thinking."
    IGNORED: ClassVar = frozenset({"display"})

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[Integer, Field(ge=0, le=MAX_BUDGET)] | None = None


class OutputConfig(ClientObject):
    """`output_config`."""

    PATH: ClassVar = "output_config."
    IGNORED: ClassVar = frozenset({"task_budget"})

    effort: Annotated[str, Field(pattern=r"^[a-z_]{1,16}$")] | None = None
    format: dict[str, Any] | None = None


class CountRequest(ClientObject):
    """Body of /v1/messages/count_tokens."""

    IGNORED: ClassVar = frozenset(
        {"metadata", "service_tier", "cache_control", "context_management", "inference_geo",
         "speed", "betas", "max_tokens", "user_profile_id", "workspace_id", "diagnostics"}
    )  # fmt: skip
    UNSUPPORTED: ClassVar = {"mcp_servers": NEUTRAL, "container": ()}

    model: Annotated[str, Field(max_length=1024)] | None = None
    messages: Annotated[list[AnthropicMessage], Field(min_length=1), AtMost(MAX_BLOCKS)]
    system: str | Annotated[list[TextBlock], AtMost(MAX_BLOCKS)] | None = None
    tools: Annotated[list[AnthropicTool], AtMost(MAX_TOOLS)] = []
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig = OutputConfig()
    output_format: dict[str, Any] | None = None  # the older name of `output_config.format`
    chat_template_kwargs: dict[str, Any] = {}  # beyond Anthropic's

    @model_validator(mode="after")
    def _tools_are_sound(self) -> Self:
        check_size(tool.input_schema for tool in self.tools)
        for place, tool in enumerate(self.tools):
            Tool.checked(
                tool.name,
                tool.description,
                tool.input_schema,
                bool(tool.strict),
                path=f"tools[{place}]",
                schema_field="input_schema",
            )
        if self.tool_choice is not None and self.tool_choice.type == "tool":
            name = self.tool_choice.name
            if name not in {tool.name for tool in self.tools}:
                raise ValueError("`tool_choice.name` must name a tool of `tools`")
        return self

    def chat(self, **more: Any) -> ChatRequest:
        """The same as a request of chat. Raises ApiError."""
        choice, thinking = self.tool_choice, self.thinking
        body = {
            "model": self.model,
            "messages": self._messages(),
            "tools": [_function(tool) for tool in self.tools] or None,
            "tool_choice": None if choice is None else choice.of_chat,
            "parallel_tool_calls": choice is None or not choice.disable_parallel_tool_use,
            "enable_thinking": None if thinking is None else thinking.type != "disabled",
            "thinking_token_budget": None if thinking is None else thinking.budget_tokens,
            "reasoning_effort": self.output_config.effort,
            "chat_template_kwargs": self.chat_template_kwargs,
            **more,
        }
        return parse(ChatRequest, body)

    def grammar(self) -> Asked | None:
        """What the answer is held to. Raises ApiError."""
        if self.output_config.format is not None:
            return flat_format(self.output_config.format, "output_config.format")
        return flat_format(self.output_format, "output_format")

    def _messages(self) -> list[dict[str, Any]]:
        system = self.system
        if system is not None and not isinstance(system, str):
            system = "\n".join(block.text for block in system)
        messages = [{"role": "system", "content": system}] if system else []
        blocks = [block for message in self.messages for block in message.blocks]
        names = {block.id: block.name for block in blocks if block.type == "tool_use"}
        for message in self.messages:
            messages += _said(message, names)
        return messages


class MessagesRequest(TimeLimited, CountRequest):
    """Body of /v1/messages."""

    IGNORED: ClassVar = CountRequest.IGNORED - {"max_tokens"}

    max_tokens: PositiveInt
    stop_sequences: Annotated[list[StopSequence], AtMost(MAX_STOPS)] = []
    stream: bool = False
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    top_k: Annotated[Integer, Field(ge=-1, le=2**31 - 1)] | None = None
    priority: Priority | None = None  # beyond Anthropic's
    seed: Annotated[Integer, Field(ge=-(2**63), le=2**64 - 1)] | None = None  # too

    def chat(self, **more: Any) -> ChatRequest:
        return super().chat(
            max_tokens=self.max_tokens,
            stop=self.stop_sequences or None,
            stream=self.stream,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            priority=self.priority,
            seed=self.seed,
            **more,
        )


def _said(message: AnthropicMessage, names: dict[str | None, str | None]) -> list[dict[str, Any]]:
    """A message as chat has it: a tool's result is a message of its own."""
    texts = [block.text or "" for block in message.blocks if block.type == "text"]
    said: dict[str, Any] = {"role": message.role, "content": "\n".join(texts)}
    if message.role == "assistant":
        thoughts = [block.thinking or "" for block in message.blocks if block.type == "thinking"]
        calls = [_call(block) for block in message.blocks if block.type == "tool_use"]
        said |= {"tool_calls": calls} if calls else {}
        return [said | ({"reasoning_content": "\n".join(thoughts)} if thoughts else {})]
    results = [_result(block, names) for block in message.blocks if block.type == "tool_result"]
    return [*results, said] if texts or not results else results


def _call(block: ContentBlock) -> dict[str, Any]:
    function = {"name": block.name, "arguments": orjson.dumps(block.input).decode()}
    return {"id": block.id, "type": "function", "function": function}


def _result(block: ContentBlock, names: dict[str | None, str | None]) -> dict[str, Any]:
    content = block.content or ""
    text = content if isinstance(content, str) else "\n".join(part.text for part in content)
    if block.is_error:
        text = f"Error: {text}"
    name = names.get(block.tool_use_id)
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": text, "name": name}


def _function(tool: AnthropicTool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict,
    }
    return {"type": "function", "function": function}
