"""The tools of a request, whatever protocol it came by."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from penstock_router.tools.schema import check_parameters

MAX_TOOLS = 256
MAX_SCHEMAS = 262_144  # bytes of all of them
MAX_DESCRIPTION = 65_536  # characters
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}


def check_size(schemas: Iterable[Mapping[str, Any] | None]) -> None:
    """Before anybody looks into them. Raises ValueError where they are too large together."""
    try:
        size = sum(len(orjson.dumps(schema)) for schema in schemas if schema is not None)
    except TypeError:  # nested more deeply than is written
        raise ValueError("the schemas of `tools` must not be nested so deeply") from None
    if size > MAX_SCHEMAS:
        raise ValueError(
            f"the schemas of `tools` must have at most {MAX_SCHEMAS} bytes. Given: {size}"
        )


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    parameters: JSON schema of an object. strict: the client counts on it, so what of it cannot be
    enforced refuses the request; else that is left out.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=lambda: _NO_PARAMETERS)
    strict: bool = False

    @classmethod
    def checked(
        cls,
        name: str,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        strict: bool = False,
        *,
        path: str = "tools[].function",
        schema_field: str = "parameters",
    ) -> Tool:
        """path and schema_field: where the client wrote it. Raises ValueError that names them."""
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"`{path}.name` must be 1 to 128 letters, digits, `_`, `-` or `.`. "
                f"Given: {len(name)} characters"
            )
        if description is not None and len(description) > MAX_DESCRIPTION:
            raise ValueError(
                f"`{path}.description` must have at most {MAX_DESCRIPTION} characters. "
                f"Given: {len(description)}"
            )
        schema = dict(parameters or _NO_PARAMETERS)
        check_parameters(schema, f"{path}.{schema_field}", strict=strict)
        return cls(name, description, schema, strict)

    @property
    def shown(self) -> dict[str, Any]:
        """What chat templates get: OpenAI's shape."""
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        return {"type": "function", "function": {**function, "parameters": dict(self.parameters)}}


class Mode(enum.Enum):
    """Whether the model calls a tool."""

    NONE = "none"  # it must not
    AUTO = "auto"  # as it likes
    REQUIRED = "required"  # it must


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of one request, and what is said about their use.

    allowed: names that may be called; None: all. parallel: several calls in one answer.
    A named function is `required` with one name, called once (`naming`).
    """

    tools: tuple[Tool, ...] = ()
    mode: Mode = Mode.AUTO
    allowed: frozenset[str] | None = None
    parallel: bool = True

    @classmethod
    def checked(
        cls,
        tools: Sequence[Tool],
        mode: Mode = Mode.AUTO,
        allowed: Iterable[str] | None = None,
        parallel: bool = True,
        *,
        choice_field: str = "tool_choice",
    ) -> Toolbox:
        """Raises ValueError for names that are twice, unknown or too many."""
        if len(tools) > MAX_TOOLS:
            raise ValueError(f"`tools` must hold at most {MAX_TOOLS} tools. Given: {len(tools)}")
        seen: set[str] = set()
        for index, tool in enumerate(tools):
            if tool.name in seen:
                raise ValueError(f"`tools[{index}]`: there is another tool named `{tool.name}`")
            seen.add(tool.name)
        names = None if allowed is None else frozenset(allowed)
        if unknown := sorted((names or frozenset()) - seen):
            raise ValueError(
                f"`{choice_field}` must name a tool of `tools`. Given: `{unknown[0][:128]}`"
            )
        if mode is Mode.REQUIRED and not tools:
            raise ValueError(f"`{choice_field}` requires a call, so `tools` cannot be empty")
        return cls(tuple(tools), mode, names, parallel)

    @classmethod
    def naming(
        cls, tools: Sequence[Tool], name: str, *, choice_field: str = "tool_choice"
    ) -> Toolbox:
        """The model must call this function, once. Raises ValueError."""
        return cls.checked(tools, Mode.REQUIRED, (name,), False, choice_field=choice_field)

    @property
    def callable(self) -> tuple[Tool, ...]:
        """Those that the model may call."""
        if self.mode is Mode.NONE:
            return ()
        return tuple(t for t in self.tools if self.allowed is None or t.name in self.allowed)

    @property
    def shown(self) -> list[dict[str, Any]] | None:
        """What chat templates get; None where no tool may be called, as without any."""
        if self.mode is Mode.NONE or not self.tools:
            return None
        return [tool.shown for tool in self.tools]


NO_TOOLS = Toolbox(mode=Mode.NONE)
