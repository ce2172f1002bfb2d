"""Structural tags: free text in which certain beginnings lead to structured parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from penstock_router.grammar import GrammarKind
from penstock_router.structured.json_schema import json_schema

MAX_TAGS = 256
MAX_CHARACTERS = 1024  # of a beginning, an end or a trigger


def structural_tag(tag: Mapping[str, Any]) -> str:
    """Lark text of a structural tag, in vLLM's older shape (`structures`, `triggers`) or as
    xgrammar has it now (`format`).

    Raises ValueError with the end of a sentence that begins with the field's name.
    """
    if "format" in tag:
        return _Formats().text(tag["format"])
    structures = tag.get("structures")
    parts = [
        {
            "type": "tag",
            "begin": one.get("begin"),
            "content": {"type": "json_schema", "json_schema": one.get("schema")},
            "end": one.get("end"),
        }
        for one in _objects(structures, "structures")
    ]
    shape = {"type": "triggered_tags", "triggers": tag.get("triggers"), "tags": parts}
    return _Formats().text(shape)


class _Formats:
    """Turns formats into rules, one after the other."""

    def __init__(self) -> None:
        self._rules: list[str] = []

    def text(self, shape: object) -> str:
        """The grammar whose text is of that format."""
        start = self._rule(shape)
        free = r"FREE: /(.|\n)*/"
        return "\n".join([f"start: {start}", free, *self._rules, ""])

    def _add(self, body: str, attributes: str = "") -> str:
        if len(self._rules) > 4 * MAX_TAGS:
            raise ValueError(f"must hold at most {4 * MAX_TAGS} parts")
        name = f"part_{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {body}")
        return name

    def _rule(self, shape: object) -> str:
        if not isinstance(shape, Mapping):
            raise ValueError("must hold formats that are objects")
        match shape.get("type"):
            case "const_string":
                return self._add(_quoted(shape.get("value"), "value"))
            case "any_text":
                return "FREE"
            case "regex":
                return self._add(f"/{_slashes(_text(shape.get('pattern'), 'pattern'))}/")
            case "json_schema":
                grammar = json_schema(shape.get("json_schema"))
                assert grammar.kind is GrammarKind.JSON_SCHEMA
                return self._add(f"%json {grammar.text}")
            case "sequence":
                return self._add(
                    " ".join(map(self._rule, _objects(shape.get("elements"), "elements")))
                )
            case "or":
                return self._add(
                    " | ".join(map(self._rule, _objects(shape.get("elements"), "elements")))
                )
            case "tag":
                begin, end = _quoted(shape.get("begin"), "begin"), self._end(shape)
                return self._add(f"{begin} {self._rule(shape.get('content'))} {end}")
            case "triggered_tags":
                return self._triggered(shape)
        raise ValueError(
            f"has a format of the type `{str(shape.get('type'))[:32]}`, which is not supported"
        )

    def _joined(self, shape: Mapping[str, Any], by: str) -> str:
        return self._add(by.join(map(self._rule, _objects(shape.get("elements"), "elements"))))

    def _end(self, shape: Mapping[str, Any]) -> str:
        end = shape.get("end")
        return _quoted(end, "end") if end else ""

    def _triggered(self, shape: Mapping[str, Any]) -> str:
        """Free text up to a trigger, then the rest of a tag that begins with it."""
        triggers = shape.get("triggers")
        if not isinstance(triggers, list) or not triggers:
            raise ValueError("must have `triggers`, a list of strings that is not empty")
        tags = _objects(shape.get("tags"), "tags")
        options: list[str] = []
        for trigger in triggers:
            trigger = _text(trigger, "triggers")
            rests = []
            for tag in tags:
                begin = _text(tag.get("begin"), "begin")
                if begin.startswith(trigger):
                    rest = begin[len(trigger) :]
                    head = orjson.dumps(rest).decode() if rest else ""
                    rests.append(f"{head} {self._rule(tag.get('content'))} {self._end(tag)}")
            if rests:
                head = self._add(r"/(.|\n)*/", f"[suffix={orjson.dumps(trigger).decode()}]")
                options.append(self._add(f"{head} ({' | '.join(rests)})"))
        begins = [_text(tag.get("begin"), "begin") for tag in tags]
        if lost := [b for b in begins if not b.startswith(tuple(triggers))]:
            raise ValueError(f"has the beginning `{lost[0][:64]}`, which no trigger begins")
        some = self._add(" | ".join(options))
        at_least = "+" if shape.get("at_least_one") else "*"
        once = bool(shape.get("stop_after_first"))
        return self._add(f"{some}{'' if once else at_least}" + ("" if once else " FREE"))


def _objects(value: object, name: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(v, Mapping) for v in value):
        raise ValueError(f"must have `{name}`, a list of objects that is not empty")
    if len(value) > MAX_TAGS:
        raise ValueError(f"must have at most {MAX_TAGS} `{name}`. Given: {len(value)}")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CHARACTERS:
        raise ValueError(f"must have in `{name}` a string of 1 to {MAX_CHARACTERS} characters")
    return value


def _quoted(value: object, name: str) -> str:
    return orjson.dumps(_text(value, name)).decode()


def _slashes(pattern: str) -> str:
    return pattern.replace("/", r"\/").replace("\n", r"\n")
