"""Variables of chat templates that a request may set: `chat_template_kwargs`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator

from penstock_router.templates.variables import RESERVED

MAX_VARIABLE_DEPTH = 16
MAX_VARIABLE_NODES = 128


def thinking(wanted: bool) -> dict[str, Any]:
    """What templates call the switch for reasoning."""
    return {"enable_thinking": wanted, "thinking": wanted}


def checked_variables(variables: Any) -> Any:
    """Itself. Raises ValueError for what a request must not set, and for what is too large."""
    if isinstance(variables, dict):
        _check_size(variables)
        for name in variables:
            _check_variable(name)
    return variables


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


TemplateVariables = Annotated[dict[str, Any], BeforeValidator(checked_variables)]
