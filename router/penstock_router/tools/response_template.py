"""A checkpoint's own description of its answers (`response_template` of tokenizer_config.json, as
transformers 5 reads it), as rows of our tables.

The patterns in it are taken apart into literals, names and white space. They never run: a pattern
of a model folder may take for ever on what a model writes. What cannot be taken apart is refused.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock_router.reasoning import ReasoningFormat
from penstock_router.tools.format import Format
from penstock_router.tools.styles.json_calls import Header, JsonCall
from penstock_router.tools.styles.notations import Unquoted
from penstock_router.tools.styles.style import Style
from penstock_router.tools.styles.tagged import Tagged

_parser: Any = importlib.import_module("re._parser")  # the only one of patterns that there is

THOUGHTS = ("thinking", "reasoning_content", "reasoning")
_KEYS = {"version", "defaults", "fields", "start_anchor", "start_anchor_pattern"}
_FIELD_KEYS = {
    *("open", "open_pattern", "close", "close_pattern", "content", "content_args"),
    *("repeats", "join", "optional", "transform", "transform_each"),
}
_SPACE, _ANY = object(), object()


class Unreadable(Exception):
    """The template holds what this server cannot take apart; says what."""


@dataclass(frozen=True)
class _Name:
    """A named group of a pattern."""

    name: str


Parts = list[Any]  # of str, _Name, _SPACE and _ANY


def read_template(spec: Any) -> tuple[Format | None, ReasoningFormat | None]:
    """What a response template says of calls and of reasoning. Raises Unreadable."""
    if not isinstance(spec, dict) or spec.get("version", 1) != 1:
        raise Unreadable("it is not of version 1")
    fields = spec.get("fields")
    if unknown := sorted(set(spec) - _KEYS):
        raise Unreadable(f"unknown key `{unknown[0]}`")
    if not isinstance(fields, dict) or not all(isinstance(f, dict) for f in fields.values()):
        raise Unreadable("`fields` must map names to objects")
    for name, field in fields.items():
        if unknown := sorted(set(field) - _FIELD_KEYS):
            raise Unreadable(f"unknown key `{name}.{unknown[0]}`")
    thoughts = next((_reasoning(fields[name]) for name in THOUGHTS if name in fields), None)
    around = _around_content(fields.get("content", {}))
    if "tool_calls" not in fields:
        return None, thoughts
    return _calls(fields["tool_calls"], around), thoughts


def _reasoning(field: Mapping[str, Any]) -> ReasoningFormat:
    opens = tuple(text.strip() for text in _literals(field, "open"))
    closes = tuple(text.strip() for text in _literals(field, "close"))
    if not closes:
        raise Unreadable("reasoning without an end")
    # Without an opening marker an answer begins with reasoning.
    return ReasoningFormat("response_template", opens or closes, closes, implied=not opens)


def _around_content(field: Mapping[str, Any]) -> tuple[str, ...]:
    if "open" not in field:
        return ()
    return (*_literals(field, "open"), *_literals(field, "close"))


def _calls(field: Mapping[str, Any], around: tuple[str, ...]) -> Format:
    opened, closed = _parts(field, "open"), _parts(field, "close")
    outer, marker, rest = _split_open(opened)
    ends = [part for part in closed if isinstance(part, str)]
    if any(isinstance(part, _Name) or part is _ANY for part in closed):
        raise Unreadable("names at the end of a call")
    content, arguments = field.get("content", "text"), field.get("content_args", {})
    close = ends[0] if ends else ""
    style: Style
    if content == "json" and not rest:
        style = _json_call(field, close)
    elif content == "json" and arguments.get("unquoted_keys"):
        delimiters = {text for pair in arguments.get("string_delims", ()) for text in pair}
        if len(delimiters) != 1 or len(rest) != 1:
            raise Unreadable("strings with several kinds of delimiters")
        style = Unquoted(delimiter=delimiters.pop(), close=close)
    elif content == "json":
        if not isinstance(rest[-1], str):
            raise Unreadable("a name that nothing ends")
        counted = len(rest) > 2 and isinstance(rest[1], str)
        style = Header(separator=rest[-1], counter=rest[1] if counted else "", close=close)
    elif content == "xml-inline":
        style = _tagged(arguments.get("tag_pattern"), rest, close)
    else:
        raise Unreadable(f"calls of the kind `{content}`")
    line = "\n" if outer else ""
    behind = "".join(ends[1:])
    return Format(
        "response_template",
        style,
        opens=(marker,),
        strays=(*([outer] if outer else ()), *ends[1:], *around),
        section=(outer + line, line + behind),
        between=f"{line}{behind}{line}{outer}{line}" if outer else "\n",
        wraps=bool(around),
    )


def _json_call(field: Mapping[str, Any], close: str) -> JsonCall:
    """Which fields of the object are the name and the arguments, as `transform` says."""
    transform = field.get("transform", "{content}")
    if isinstance(transform, dict) and "function" in transform:
        transform = transform["function"]
    if isinstance(transform, str):
        return JsonCall(close=close)
    keys = {}
    for key in ("name", "arguments"):
        placeholder = transform.get(key) if isinstance(transform, dict) else None
        if not isinstance(placeholder, str) or not re.fullmatch(r"\{[\w.]+\}", placeholder):
            raise Unreadable("what `transform` makes of a call")
        keys[key] = placeholder[1:-1].removeprefix("content.")
    many = bool(field.get("transform_each"))
    return JsonCall(keys["name"], keys["arguments"], many, close=close)


def _tagged(pattern: Any, rest: Parts, close: str) -> Tagged:
    parts = _taken_apart(pattern)
    words = [part for part in parts if part is not _SPACE]
    match words:
        case [str(key_open), _Name("key"), str(key_end), _Name("value"), str(value_end)]:
            end = rest[-1] if isinstance(rest[-1], str) else ""
            return Tagged(
                name_end=end or ">",
                key_open=key_open,
                key_end=key_end,
                value_end=value_end,
                close=close,
                padded=_SPACE in parts,
                line="\n",
            )
    raise Unreadable("the pattern of tags")


def _split_open(parts: Parts) -> tuple[str, str, Parts]:
    """What stands around a call, the marker that opens it, and what follows that: a name first."""
    place = next((i for i, part in enumerate(parts) if isinstance(part, _Name)), len(parts))
    before = [part for part in parts[:place] if part is not _SPACE]
    if not before or len(before) > 2 or not all(isinstance(part, str) for part in before):
        raise Unreadable("what opens a call")
    return "".join(before[:-1]), before[-1], parts[place:]


def _literals(field: Mapping[str, Any], end: str) -> list[str]:
    """What opens or closes a field, where it is one of some strings."""
    value = field.get(end)
    if value is None and f"{end}_pattern" in field:
        parts = [part for part in _parts(field, end) if part is not _SPACE]
        if not all(isinstance(part, str) for part in parts):
            raise Unreadable(f"`{end}_pattern`")
        return ["".join(parts)]
    values = [value] if isinstance(value, str) else value or []
    if not all(isinstance(text, str) and text for text in values):
        raise Unreadable(f"`{end}` must be strings")
    return list(values)


def _parts(field: Mapping[str, Any], end: str) -> Parts:
    if f"{end}_pattern" in field:
        return _taken_apart(field[f"{end}_pattern"])
    literals = _literals(field, end)
    if len(literals) > 1:
        raise Unreadable(f"several strings that {end} a call")
    return list(literals)


def _taken_apart(pattern: Any) -> Parts:
    """A regular expression as literals, white space, named groups and anything else that is
    repeated. Raises Unreadable."""
    try:
        tree = _parser.parse(pattern, re.DOTALL)
    except (re.error, TypeError, RecursionError, OverflowError):
        raise Unreadable("a pattern that is none") from None
    names = {number: name for name, number in tree.state.groupdict.items()}
    parts: Parts = []
    for kind, value in tree:
        match str(kind):
            case "LITERAL":
                if parts and isinstance(parts[-1], str):
                    parts[-1] += chr(value)
                else:
                    parts.append(chr(value))
            case "SUBPATTERN" if value[0] in names:
                parts.append(_Name(names[value[0]]))
            case "MAX_REPEAT" | "MIN_REPEAT":
                parts.append(_SPACE if _is_space(value[2]) else _ANY)
            case _:
                raise Unreadable("a pattern of another form")
    while parts and parts[0] is _SPACE:
        del parts[0]
    return parts


def _is_space(items: Sequence[Any]) -> bool:
    kinds = str(list(items))
    return "CATEGORY_SPACE" in kinds or kinds == str([(_parser.LITERAL, 10)])
