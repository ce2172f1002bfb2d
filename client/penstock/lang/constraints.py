"""What generated text may be held to, as users say it: types, schemas, grammars, tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# SGLang's expressions for `dtype`, and what ends such a text besides.
_BLANK = r"[ \n]*"
DTYPES: Mapping[str, Mapping[str, Any]] = {
    "int": {"regex": rf"[-+]?[0-9]+{_BLANK}", "stop": (" ", "\n")},
    "float": {"regex": rf"[-+]?[0-9]*\.?[0-9]+{_BLANK}", "stop": (" ", "\n")},
    "bool": {"regex": r"(True|False)"},
    "str": {"regex": r'"[\w\d\s]*"'},
}
KINDS = ("regex", "json_schema", "grammar", "dtype", "choices")


def only_one(**given: Any) -> None:
    """Raises ValueError where several of KINDS are given: a text is held to one thing."""
    named = [name for name in KINDS if given.get(name) is not None]
    if len(named) > 1:
        raise ValueError(
            f"a text can be held to one of {', '.join(KINDS)}. Given: {', '.join(named)}"
        )


def of_dtype(dtype: type | str, stop: tuple[str, ...]) -> dict[str, Any]:
    """Fields of `Sampling` for a type. Raises ValueError for one that there is not."""
    name = dtype if isinstance(dtype, str) else dtype.__name__
    name = {"string": "str", "integer": "int", "boolean": "bool"}.get(name, name)
    if name not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}. Given: {name}")
    row = dict(DTYPES[name])
    row["stop"] = (*stop, *row.get("stop", ()))
    return row


def json_schema(value: Any) -> Any:
    """A schema as the server takes it, from a dict, JSON, or a pydantic model. Raises TypeError,
    ValueError."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"`json_schema` is not JSON: {error}") from None
    if isinstance(value, Mapping | bool):
        return value
    if callable(make := getattr(value, "model_json_schema", None)):
        return make()
    if callable(make := getattr(value, "json_schema", None)):  # pydantic.TypeAdapter
        return make()
    raise TypeError(
        f"`json_schema` must be a dict, JSON, or a pydantic model. Given: {type(value).__name__}"
    )


def openai_tools(tools: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """Tools in OpenAI's shape, of that or of bare {name, description, parameters}. Raises
    ValueError for what is neither."""
    return tuple(_tool(tool, place) for place, tool in enumerate(tools))


def _tool(tool: Any, place: int) -> dict[str, Any]:
    if isinstance(tool, Mapping):
        if isinstance(tool.get("function"), Mapping):
            return {"type": "function", **tool}
        if isinstance(tool.get("name"), str):
            return {"type": "function", "function": dict(tool)}
    raise ValueError(
        f"`tools[{place}]` must be {{name, description, parameters}}, or OpenAI's "
        f"{{type, function}}. Given: {type(tool).__name__}"
    )
