"""How long a run a grammar may force at once: a bound from above.

The library finds all that a grammar forces in one call, and again for each mask within it. So the
13 MB of `start: b{60}`, `b: A{60}`, `A: /a{3600}/` take eight seconds, and 3,600 short literals in
a row 10 ms a token. What is forced is written in the grammar, and written once, but for what
repeats it: counts, and names that are used twice. So lengths are added up where nothing is free in
between, and multiplied where they are counted. Of a rule within itself nothing is counted again: a
text that is forced cannot be longer than the shortest one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.tools.schema import resolve

MOST_FORCED = 1024  # characters, for which a mask takes a millisecond


class Part(NamedTuple):
    """A part of a grammar."""

    length: float  # of the longest run in it
    fixed: bool  # nothing in it is free for certain, so a run may go on behind it


class Times(NamedTuple):
    """The part before comes so often at least."""

    least: int


_OPEN, _CLOSE, _OR = "(", ")", "|"
_Step = Part | Times | str
FREE = Part(2, False)  # a value in quotes
NOTHING = Part(0, True)


@dataclass
class _Sequence:
    """Parts one after the other, in alternatives. A run goes through them where all are fixed:
    alternatives may begin alike."""

    longest: float = 0
    going_on: float = 0  # the run that the next part may go on with
    fixed: bool = True
    last: Part = NOTHING

    def add(self, part: Part) -> None:
        self._settle()
        self.last = part

    def repeat(self, times: Times) -> None:
        length, fixed = self.last
        # else no run is longer than the end of one and the beginning of the next
        self.last = Part(length * max(1, times.least if fixed else min(times.least, 2)), fixed)

    def alternative(self) -> None:
        self._settle()
        self.going_on = 0

    def whole(self) -> Part:
        self._settle()
        return Part(self.longest, self.fixed)

    def _settle(self) -> None:
        length, fixed = self.last
        self.longest = max(self.longest, self.going_on + length)
        self.going_on = self.going_on + length if fixed else length
        self.fixed = self.fixed and fixed
        self.last = NOTHING


def longest_run(grammar: Grammar) -> float:
    """Its length in characters at most; infinite where that cannot be told."""
    try:
        match grammar.kind:
            case GrammarKind.JSON_SCHEMA:
                return _Schemas(json.loads(grammar.text)).whole().length
            case GrammarKind.REGEX:
                return _of_pattern(grammar.text).length
            case _:
                return _Rules(grammar.text).part("start").length
    except (ValueError, TypeError, AttributeError, RecursionError):  # the shard refuses what is odd
        return math.inf


def _in_sequence(steps: Iterable[_Step]) -> Part:
    """Raises ValueError where brackets do not match."""
    open_ones = [_Sequence()]
    for step in steps:
        if isinstance(step, Part):
            open_ones[-1].add(step)
        elif isinstance(step, Times):
            open_ones[-1].repeat(step)
        elif step == _OR:
            open_ones[-1].alternative()
        elif step == _OPEN:
            open_ones.append(_Sequence())
        else:
            part = open_ones.pop().whole()
            if not open_ones:
                raise ValueError("a bracket too many is closed")
            open_ones[-1].add(part)
    [whole] = open_ones
    return whole.whole()


# -- patterns --------------------------------------------------------------------------------------

_COUNT = r"\{\s*(?P<least>\d+)[^}]*\}"
_PATTERN = re.compile(
    rf"(?P<times>{_COUNT})|(?P<maybe>[*+?]|\{{,\d+\}})"
    r"|(?P<open>\((?:\?[^:)=!<>]*[:=!>]|\?P?<[^>]*>)?)|(?P<close>\))|(?P<or>\|)|(?P<none>[\^$])"
    r"|(?P<some>\\[pP]\{[^}]*\}|\\[dDwWsSpP]|\[\^?\]?(?:\\.|[^\]\\])*\]|\.)"
    r"|(?P<one>\\x\w\w|\\u\w{4}|\\.|.)",
    re.S,
)
_MARKS: Mapping[str, _Step] = {
    "maybe": Times(1),
    "open": _OPEN,
    "close": _CLOSE,
    "or": _OR,
    "none": NOTHING,
    "some": Part(1, False),
    "one": Part(1, True),
}


def _of_pattern(pattern: str) -> Part:
    found = _PATTERN.finditer(pattern)
    return _in_sequence(_MARKS.get(str(one.lastgroup)) or _times(one) for one in found)


def _times(found: re.Match[str]) -> Times:
    return Times(int(found["least"]))


# -- rules -----------------------------------------------------------------------------------------

_RULE = re.compile(r"^[ \t]*[?!]?([A-Za-z_]\w*)[ \t]*(?:\.-?\d+)?(?:\[[^\]\n]*\])?[ \t]*:", re.M)
_LARK = re.compile(
    r"(?P<none>\s+|//[^\n]*|\#[^\n]*|->[ \t]*\w+|\.\.|,|=|%(?:ignore|import)[^\n]*)"
    r'|(?P<string>"(?:\\.|[^"\\\n])*"i?)|(?P<pattern>/(?!/)(?:\\.|[^/\\\n])+/[imslux]*)'
    rf"|(?P<times>{_COUNT})|~\s*(?P<tilde>\d+)(?:\.\.\d+)?|(?P<maybe>[*+?]|\{{,\d+\}})"
    r"|(?P<open>[(\[])|(?P<close>[)\]])|(?P<or>\|)"
    r"|(?P<inner>%(?:json|regex|llguidance)\b\s*)|(?P<special><[^<>\s]+>)|(?P<name>[A-Za-z_]\w*)"
)


class _Rules:
    """Those of a text in Lark's notation."""

    def __init__(self, text: str) -> None:
        found = list(_RULE.finditer(text))
        ends = [one.start() for one in found[1:]] + [len(text)]
        self._bodies = {one[1]: text[one.end() : end] for one, end in zip(found, ends, strict=True)}
        self._parts: dict[str, Part] = {}

    def part(self, name: str) -> Part:
        """What a name stands for; one that is imported is short."""
        if name not in self._parts:
            self._parts[name] = NOTHING
            body = self._bodies.get(name)
            self._parts[name] = Part(16, True) if body is None else _in_sequence(self._steps(body))
        return self._parts[name]

    def _steps(self, body: str) -> Iterator[_Step]:
        at = 0
        while at < len(body):
            found = _LARK.match(body, at)
            if found is None:
                raise ValueError(f"it is not known what {body[at]} is")
            at = found.end()
            match found.lastgroup:
                case "inner":
                    value, end = json.JSONDecoder().raw_decode(body, at)
                    yield _Schemas(value).whole() if "json" in found[0] else Part(end - at, True)
                    at = end
                case "string" | "special":
                    yield Part(len(found[0]), True)
                case "pattern":
                    yield _of_pattern(found[0][1 : found[0].rindex("/")])
                case "name":
                    yield self.part(found[0])
                case "tilde":
                    yield Times(int(found["tilde"]))
                case kind:
                    yield _MARKS.get(str(kind)) or _times(found)


# -- schemas ---------------------------------------------------------------------------------------

_TOGETHER = ("allOf", "not", "if", "then", "else")  # they speak of the same value
_MARKS_OF_A_KEY = 6  # quotes, a colon, a comma, blanks


@dataclass
class _Schemas:
    """A schema, and those that it refers to."""

    root: Any
    _parts: dict[int, Part] = field(default_factory=dict)

    def whole(self) -> Part:
        return self.part(self.root)

    def part(self, schema: Any) -> Part:
        if not isinstance(schema, dict):
            return FREE
        if id(schema) not in self._parts:
            self._parts[id(schema)] = FREE
            said = [one for one in self._said(schema) if one != NOTHING]
            self._parts[id(schema)] = _in_sequence(said) if said else FREE
        return self._parts[id(schema)]

    def _said(self, schema: Mapping[str, Any]) -> Iterator[Part]:
        """What is said of a value: all of it is added up."""
        values = [*([schema["const"]] if "const" in schema else []), *schema.get("enum", [])]
        lengths = [float(len(json.dumps(value))) for value in values]
        yield Part(max(lengths, default=0), len(values) < 2)
        if "pattern" in schema:  # even what is free in it may meet another pattern
            counted = re.sub(r"\[(?:\\.|[^\]\\])*\]|\\.|\.", "x", schema["pattern"])
            least = float(schema.get("minLength", 0))
            yield Part(max(least, _of_pattern(counted).length) + 2, True)
        yield _in_sequence(self._items(schema))
        yield _in_sequence(self._properties(schema))
        yield _in_sequence(self._alternatives(schema))
        for keyword in _TOGETHER:
            yield from map(self.part, _several(schema, keyword))
        if "$ref" in schema:
            yield self.part(resolve(self.root, schema["$ref"]))

    def _alternatives(self, schema: Mapping[str, Any]) -> Iterator[_Step]:
        for keyword in ("anyOf", "oneOf"):
            for branch in _several(schema, keyword):
                yield _OR
                yield self.part(branch)

    def _items(self, schema: Mapping[str, Any]) -> Iterator[_Step]:
        yield from map(self.part, _several(schema, "prefixItems"))
        least = Times(int(max(schema.get("minItems", 1), schema.get("minContains", 1))))
        for keyword in ("items", "additionalItems", "contains"):
            for one in _several(schema, keyword):
                length, fixed = self.part(one)
                yield Part(length + 2, fixed)
                yield least

    def _properties(self, schema: Mapping[str, Any]) -> Iterator[_Step]:
        for name, value in schema.get("properties", {}).items():
            yield Part(len(json.dumps(name)) + _MARKS_OF_A_KEY, True)
            yield self.part(value)
        others = list(schema.get("patternProperties", {}).items())
        others += [("", one) for one in _several(schema, "propertyNames")]
        others += [("", one) for one in _several(schema, "additionalProperties")]
        for pattern, value in others:
            yield _OPEN
            yield _of_pattern(pattern)
            yield Part(_MARKS_OF_A_KEY, True)
            yield self.part(value)
            yield _CLOSE
            yield Times(int(schema.get("minProperties", 1)))


def _several(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    """The schemas behind a keyword that takes one, or a list."""
    found = schema.get(keyword, [])
    return found if isinstance(found, list) else [found]
