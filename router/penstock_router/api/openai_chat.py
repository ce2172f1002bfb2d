"""Requests of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from penstock_router.api.openai_message import Message
from penstock_router.api.openai_request import HARMLESS, OpenAIRequest
from penstock_router.api.openai_tools import TOOL_PROMPT, Functions, Tools, told, toolbox
from penstock_router.api.options import Names
from penstock_router.api.schema import NEUTRAL, Reading
from penstock_router.api.schema_types import AtMost, Integer, PositiveInt
from penstock_router.api.structured import UNSTRUCTURED
from penstock_router.api.template_variables import TemplateVariables, thinking
from penstock_router.limits import MAX_TOP_LOGPROBS
from penstock_router.text import Conversation
from penstock_router.tools.definition import Toolbox
from penstock_router.tools.schema import unenforced

MAX_TOOL_PROMPT = 65_536  # characters
MAX_BUDGET = 2**31 - 1


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
    chat_template_kwargs: TemplateVariables = {}
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
    # vLLM's: most tokens of reasoning
    thinking_token_budget: Annotated[Integer, Field(ge=0, le=MAX_BUDGET)] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    echo: bool = False  # vLLM's: the message that is continued is part of the answer

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.add_generation_prompt and self.continue_final_message:
            raise ValueError(
                "`add_generation_prompt` and `continue_final_message` must not both be true"
            )
        return self

    _toolbox: Toolbox = PrivateAttr()  # made once: it may take tens of milliseconds

    @model_validator(mode="after")
    def _tools_are_right(self, info: ValidationInfo) -> Self:
        reading = info.context or Reading()
        self._toolbox = self._made_toolbox()
        for tool in self._toolbox.tools:
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
        """The tools that the model may call."""
        return self._toolbox

    def _made_toolbox(self) -> Toolbox:
        """Raises ValueError that names what is wrong."""
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
