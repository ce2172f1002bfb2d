"""A stream as one value: the fields that its events have, and the text that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DONE = "[DONE]"


def joined(events: Iterable[Any]) -> dict[str, Any]:
    """`events`: one that has all fields of all; `text`; `ends`: why. How many there were, and
    where they were cut, is chance."""
    every: dict[str, Any] = {}
    text, ends, done = [], [], False
    for event in events:
        if event == DONE:
            done = True
        elif isinstance(event, Mapping):
            _merge(every, event)
            text += _texts(event)
            ends += _ends(event)
    return {
        "stream": _shape(every),
        "text": "".join(text),
        "ends": ends,
        "last event is [DONE]": done,
    }


def _merge(into: dict[str, Any], event: Mapping[str, Any]) -> None:
    for name, value in event.items():
        before = into.get(name)
        if isinstance(before, dict) and isinstance(value, Mapping):
            _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            _merge_items(before, value)
        elif isinstance(value, Mapping):
            _merge(into.setdefault(name, {}) if before is None else {}, value)
        elif isinstance(value, list):
            into[name] = []
            _merge_items(into[name], value)
        elif value is not None:
            into[name] = value


def _merge_items(into: list[Any], values: list[Any]) -> None:
    """All items become one."""
    for value in values:
        if not isinstance(value, Mapping):
            into[:] = into or [value]
        elif into and isinstance(into[0], dict):
            _merge(into[0], value)
        else:
            into[:] = [{}]
            _merge(into[0], value)


def _shape(value: Any) -> Any:
    """The same without values: those of single events are chance."""
    if isinstance(value, dict):
        return {name: _shape(field) for name, field in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return type(value)()


def _texts(event: Mapping[str, Any]) -> list[str]:
    found: list[Any] = []
    for choice in _objects(event.get("choices")):  # OpenAI's
        delta = choice.get("delta") or {}
        found += [choice.get("text"), delta.get("content")]
        for call in _objects(delta.get("tool_calls")):
            found += [(call.get("function") or {}).get(name) for name in ("name", "arguments")]
    token, delta = event.get("token"), event.get("delta")
    if isinstance(token, Mapping) and not token.get("special"):  # TGI's
        found.append(token.get("text"))
    found.append(delta.get("text") if isinstance(delta, Mapping) else delta)  # Anthropic's
    return [text for text in found if isinstance(text, str)]


def _ends(event: Mapping[str, Any]) -> list[str]:
    details, delta = event.get("details"), event.get("delta")
    found = [choice.get("finish_reason") for choice in _objects(event.get("choices"))]
    found += [details.get("finish_reason")] if isinstance(details, Mapping) else []
    found += [delta.get("stop_reason")] if isinstance(delta, Mapping) else []
    return [end for end in found if isinstance(end, str)]


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
