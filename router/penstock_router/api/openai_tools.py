"""Tools in OpenAI's shape, its older one, and TGI's: what a request says, and what answers show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import AfterValidator, Field, ValidationInfo

from penstock_router.api.schema import ClientObject, Reading
from penstock_router.api.schema_types import AtMost
from penstock_router.tools.definition import (
    MAX_TOOLS,
    NO_TOOLS,
    Mode,
    Tool,
    Toolbox,
    check_size,
)
from penstock_router.tools.events import ToolCall

MAX_CALLS = 256  # of a message
# TGI's words to a model whose template shows it no tools.
TOOL_PROMPT = (
    "You may call the functions above. To call one, answer with nothing but JSON of the form "
    '{"name": name of the function, "arguments": {name of an argument: its value}}.'
)

Schema = Annotated[dict[str, Any], Field()]


class FunctionObject(ClientObject):
    """A function that the model may call."""

    PATH: ClassVar = "tools[].function."

    name: str
    description: str | None = None
    parameters: Schema | None = None
    arguments: Schema | None = None  # TGI's name for the same
    strict: bool = False

    @property
    def described(self) -> dict[str, Any] | None:
        """What it says of its arguments, under either name."""
        return self.parameters if self.parameters is not None else self.arguments

    def tool(self, path: str) -> Tool:
        """Raises ValueError that names what is wrong."""
        named = "parameters" if self.parameters is not None else "arguments"
        schema = self.described
        return Tool.checked(
            self.name,
            self.description,
            schema,
            self.strict,
            path=path,
            schema_field=named if schema is not None else "parameters",
        )


class ToolObject(ClientObject):
    """An entry of `tools`."""

    PATH: ClassVar = "tools[]."

    type: Literal["function"] = "function"
    function: FunctionObject


def _arguments(value: str | dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """The arguments of a call as an object. Raises ValueError."""
    if not isinstance(value, str):
        return value
    reading: Reading = info.context or Reading()
    found = reading.loads(value or "{}", "messages[].tool_calls[].function.arguments")
    if not isinstance(found, dict):
        raise ValueError(
            "`messages[].tool_calls[].function.arguments` must be a JSON object as a string. "
            f"Given: a string of {len(value)} characters"
        )
    return found


class CalledFunction(ClientObject):
    """The function of a call in a message."""

    PATH: ClassVar = "messages[].tool_calls[].function."
    IGNORED: ClassVar = frozenset({"description"})  # TGI's answers had it

    name: Annotated[str, Field(max_length=1024)]
    arguments: Annotated[str | Schema, AfterValidator(_arguments)] = Field(default_factory=dict)

    @property
    def parsed(self) -> dict[str, Any]:
        """The arguments as an object, which templates want."""
        assert isinstance(self.arguments, dict)
        return self.arguments


class CallObject(ClientObject):
    """A call in a message of the assistant."""

    PATH: ClassVar = "messages[].tool_calls[]."
    IGNORED: ClassVar = frozenset({"index"})

    id: Annotated[str, Field(max_length=1024)] = ""
    type: Literal["function"] = "function"
    function: CalledFunction

    def variables(self) -> dict[str, Any]:
        """What templates get."""
        function = {"name": self.function.name, "arguments": self.function.parsed}
        return {"id": self.id, "type": "function", "function": function}


Tools = Annotated[list[ToolObject], AtMost(MAX_TOOLS)]
Functions = Annotated[list[FunctionObject], AtMost(MAX_TOOLS)]
Calls = Annotated[list[CallObject], AtMost(MAX_CALLS)]

_CHOICE = (
    "`{0}` must be `none`, `auto`, `required` or an object that names a function of `tools`, as "
    '{{"type": "function", "function": {{"name": …}}}}'
)
_MODES = {mode.value: mode for mode in Mode}


def toolbox(
    tools: Sequence[ToolObject] | None,
    functions: Sequence[FunctionObject] | None,
    choice: Any,
    *,
    choice_field: str,
    parallel: bool,
) -> Toolbox:
    """Raises ValueError that names what is wrong."""
    check_size(one.function.described for one in tools or ())
    check_size(one.described for one in functions or ())
    given = [one.function.tool(f"tools[{i}].function") for i, one in enumerate(tools or ())]
    given += [one.tool(f"functions[{i}]") for i, one in enumerate(functions or ())]
    if functions:
        parallel = False  # the older shape has room for one
    names = [tool.name for tool in given]
    match choice:
        case str() if choice in _MODES:
            return Toolbox.checked(given, _MODES[choice], None, parallel, choice_field=choice_field)
        case None:
            return Toolbox.checked(given, parallel=parallel) if given else NO_TOOLS
        case str() if choice in names:  # TGI's shape
            return Toolbox.naming(given, choice, choice_field=choice_field)
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return Toolbox.naming(given, name, choice_field=choice_field)
        case {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(allowed)}}:
            if mode in ("auto", "required") and (listed := _allowed(allowed)) is not None:
                return Toolbox.checked(
                    given, _MODES[mode], listed, parallel, choice_field=choice_field
                )
    raise ValueError(_CHOICE.format(choice_field))


def _allowed(entries: Sequence[Any]) -> list[str] | None:
    names = []
    for entry in entries:
        match entry:
            case {"function": {"name": str(name)}}:
                names.append(name)
            case _:
                return None
    return names or None


def shown_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """`tool_calls` of an answer."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def told(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None, prompt: str
) -> list[Mapping[str, Any]]:
    """The messages with words about tools at the end of the last one, as TGI put them.

    tools: what to list there; None where the template shows them.
    """
    *before, last = messages
    listed = "" if tools is None else "\n" + orjson.dumps(tools).decode()
    words = f"\n---{listed}\n{prompt}" if prompt else f"\n---{listed}"
    content = last.get("content") or ""
    if isinstance(content, str):
        return [*before, {**last, "content": content + words}]
    return [*before, {**last, "content": [*content, {"type": "text", "text": words}]}]
