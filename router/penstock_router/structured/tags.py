"""Structural tags: free text in which certain beginnings lead to structured parts.

A lexeme is as long as it can be, so free text cannot be followed by text that it may hold itself.
It ends where the first of the strings stands that may follow it, and one lexeme holds both. So
every part is made knowing what follows it (`Ends`), and what ends it is part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.structured.json_schema import json_schema
from penstock_router.structured.lark import check_length, converted, is_gbnf, lark_text
from penstock_router.structured.tag_fields import (
    MAX_TAGS,
    Ends,
    Shape,
    begin_of,
    check_tokens,
    count,
    end_of,
    items,
    literal,
    marker,
    objects,
    quoted,
    slashes,
    text,
    token,
)
from penstock_router.tools.lark import escape, lacks

MAX_CHARACTERS = 262_144  # of all parts as the grammar has them, as many as tools may have
MAX_GBNF = 2048  # characters of all together: they are converted at once

NOTHING = Ends()
SOMETHING = Ends(known=False)


def structural_tag(tag: Shape) -> str:
    """Lark text of a structural tag, in vLLM's older shape (`structures`, `triggers`) or as
    xgrammar has it now (`format`).

    Raises ValueError with the end of a sentence that begins with the field's name.
    """
    if "format" in tag:
        return _Parts().lark(tag["format"])
    structures = tag.get("structures")
    parts = [
        {
            "type": "tag",
            "begin": one.get("begin"),
            "content": {"type": "json_schema", "json_schema": one.get("schema")},
            "end": one.get("end"),
        }
        for one in objects(structures, "structures")
    ]
    return _Parts().lark({"type": "triggered_tags", "triggers": tag.get("triggers"), "tags": parts})


class _Parts:
    """Turns formats into rules, one after the other."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._characters = 0
        self._gbnf = 0

    def lark(self, shape: object) -> str:
        """The grammar whose text is of that format."""
        start = self.part(shape, NOTHING)
        return "\n".join([f"start: {start}", *self._lines, ""])

    def part(self, shape: object, ends: Ends) -> str:
        """The name of a rule: what is of that format, and what ends it."""
        if not isinstance(shape, Mapping):
            raise ValueError("must hold formats that are objects")
        kind = shape.get("type")
        known = KINDS.get(kind) if isinstance(kind, str) else None
        if known is None:
            raise ValueError(f"has a format of the type `{str(kind)[:32]}`, which is not supported")
        make, fields = known
        for field, value in shape.items():
            if field not in ("type", *fields) and value not in (None, False, [], ""):
                raise ValueError(
                    f"has `{field[:32]}` in a format of the type `{kind}`, which is not supported"
                )
        return self._rule(make(self, shape, ends))

    def const_string(self, shape: Shape, ends: Ends) -> str:
        return f"{quoted(shape.get('value'), 'value')} {ends.rule}"

    def any_text(self, shape: Shape, ends: Ends) -> str:
        most = shape.get("max_chars")
        return self._free(ends, shape, None if most is None else count(most, "max_chars"))

    def regex(self, shape: Shape, ends: Ends) -> str:
        pattern = slashes(text(shape.get("pattern"), "pattern"))
        if not ends.texts:
            return f"/{pattern}/ {ends.rule}"
        return f"/(?:{pattern})(?:{'|'.join(map(escape, ends.texts))})/"

    def json_schema(self, shape: Shape, ends: Ends) -> str:
        if (style := shape.get("style")) not in (None, "json"):
            raise ValueError(f"has the style `{str(style)[:32]}`; only `json` is supported")
        grammar = json_schema(shape.get("json_schema"))
        assert grammar.kind is GrammarKind.JSON_SCHEMA
        return f"{self._rule(f'%json {grammar.text}')} {ends.rule}"

    def grammar(self, shape: Shape, ends: Ends) -> str:
        written = shape.get("grammar")
        if not isinstance(written, str) or not written.strip():
            raise ValueError("must have in `grammar` a string that is not empty")
        check_length(written)
        if is_gbnf(written):
            self._gbnf += len(written)
            if self._gbnf > MAX_GBNF:
                raise ValueError(f"must have at most {MAX_GBNF} characters of GBNF in its formats")
            lark = converted(Grammar(GrammarKind.GBNF, written)).text
        else:
            lark = lark_text(written)
        return self._rule("%lark {\n" + lark + "\n}") + f" {ends.rule}"

    def token(self, shape: Shape, ends: Ends) -> str:
        return f"{token(shape.get('token'))} {ends.rule}"

    def any_tokens(self, shape: Shape, ends: Ends) -> str:
        """Text, as special tokens have no place in it."""
        check_tokens(shape.get("exclude_tokens"))
        return self._free(ends, {})

    def sequence(self, shape: Shape, ends: Ends) -> str:
        """What a string, a token or a tag begins with is what ends the element before it."""
        elements = objects(shape.get("elements"), "elements")
        pieces: list[str] = []
        begun = False  # by the element before
        for place, element in enumerate(elements):
            last = place == len(elements) - 1
            begin = None if last else begin_of(elements[place + 1])
            follows = ends if last else begin or SOMETHING
            if not begun:
                pieces.append(self.part(element, follows))
            elif element.get("type") == "tag":
                pieces.append(self._rule(self._inside(element, follows)))
            else:
                pieces.append(follows.rule)
            begun = begin is not None
        return " ".join(pieces)

    def any_of(self, shape: Shape, ends: Ends) -> str:
        elements = objects(shape.get("elements"), "elements")
        return " | ".join(self.part(element, ends) for element in elements)

    def optional(self, shape: Shape, ends: Ends) -> str:
        part = self.part(shape.get("content"), ends)
        return f"{part} | {ends.rule}" if ends.rule else f"{part}?"

    def star(self, shape: Shape, ends: Ends) -> str:
        return f"{self.part(shape.get('content'), SOMETHING)}* {ends.rule}"

    def plus(self, shape: Shape, ends: Ends) -> str:
        return f"{self.part(shape.get('content'), SOMETHING)}+ {ends.rule}"

    def repeat(self, shape: Shape, ends: Ends) -> str:
        least = count(shape.get("min"), "min")
        most = None if shape.get("max") == -1 else count(shape.get("max"), "max")
        if most is not None and most < max(least, 1):
            raise ValueError("must have a `max` that is not below `min`, and above 0")
        times = f"{{{least},{'' if most is None else most}}}"
        return f"{self.part(shape.get('content'), SOMETHING)}{times} {ends.rule}"

    def tag(self, shape: Shape, ends: Ends) -> str:
        return f"{marker(shape.get('begin'), 'begin').rule} {self._inside(shape, ends)}"

    def _inside(self, tag: Shape, ends: Ends) -> str:
        """A tag behind its beginning."""
        own = end_of(tag)
        if own is None:
            return self.part(tag.get("content"), ends)
        return f"{self.part(tag.get('content'), own)} {ends.rule}"

    def tags_with_separator(self, shape: Shape, ends: Ends) -> str:
        one = self._one_of(objects(shape.get("tags"), "tags"))
        separator = shape.get("separator")
        between = quoted(separator, "separator") if separator else ""
        some = one if shape.get("stop_after_first") else f"{one} ({between} {one})*"
        return f"({some}){'' if shape.get('at_least_one') else '?'} {ends.rule}"

    def triggered_tags(self, shape: Shape, ends: Ends) -> str:
        """Free text up to a trigger, then the rest of a tag that begins with it."""
        triggers = items(shape.get("triggers"), "triggers")
        tags = objects(shape.get("tags"), "tags")
        begins = [text(tag.get("begin"), "begin") for tag in tags]
        for trigger in triggers:
            text(trigger, "triggers")
        if lost := [b for b in begins if not b.startswith(tuple(triggers))]:
            raise ValueError(f"has the beginning `{lost[0][:64]}`, which no trigger begins")
        options = []
        for trigger in triggers:
            rests = [
                f"{literal(begin[len(trigger) :])} {self._inside(tag, SOMETHING)}"
                for begin, tag in zip(begins, tags, strict=True)
                if begin.startswith(trigger)
            ]
            if rests:
                options.append((Ends((trigger,)), self._rule(" | ".join(rests))))
        return self._led_to(options, tags, shape, ends)

    def token_triggered_tags(self, shape: Shape, ends: Ends) -> str:
        check_tokens(shape.get("exclude_tokens"))
        tags = objects(shape.get("tags"), "tags")
        triggers = {token(one) for one in items(shape.get("trigger_tokens"), "trigger_tokens")}
        options = []
        for tag in tags:
            begin = marker(tag.get("begin"), "begin")
            if begin.token not in triggers:
                raise ValueError("has a tag that no trigger begins")
            options.append((begin, self._rule(self._inside(tag, SOMETHING))))
        return self._led_to(options, tags, {**shape, "excludes": []}, ends)

    def dispatch(self, shape: Shape, ends: Ends) -> str:
        """Free text in which strings, or tokens, lead to formats."""
        check_tokens(shape.get("exclude_tokens"))
        loop = shape.get("loop") is not False
        options = []
        for rule in items(shape.get("rules"), "rules"):
            if not isinstance(rule, list) or len(rule) != 2:
                raise ValueError("must have `rules` that are pairs of a beginning and a format")
            head = text(rule[0], "rules") if shape["type"] == "dispatch" else None
            begin = Ends((head,)) if head else Ends(token=token(rule[0]))
            options.append((begin, self.part(rule[1], SOMETHING)))
        return self._led_to(options, (), {**shape, "stop_after_first": not loop}, ends)

    def _led_to(
        self, options: Sequence[tuple[Ends, str]], tags: Sequence[Shape], shape: Shape, ends: Ends
    ) -> str:
        """Free text with parts that beginnings lead to. tags: the same parts with what begins
        them, of which one comes first where one must be there."""
        some = self._rule(
            " | ".join(f"{self._free(begin, shape)} {rest}" for begin, rest in options)
        )
        once = bool(shape.get("stop_after_first"))
        if shape.get("at_least_one"):
            first = self._one_of(tags)
            return f"{first} {ends.rule}" if once else f"{first} {some}* {self._free(ends, shape)}"
        rest = self._free(ends, shape)
        return f"{some} {ends.rule} | {rest}" if once else f"{some}* {rest}"

    def _one_of(self, tags: Sequence[Shape]) -> str:
        return self._rule(" | ".join(self.part({**tag, "type": "tag"}, SOMETHING) for tag in tags))

    def _free(self, ends: Ends, shape: Shape, most: int | None = None) -> str:
        """Any text up to what ends it. shape: `excludes` are strings that it does not hold."""
        if not ends.known:
            raise ValueError(
                "has free text that nothing ends: behind it must come the end of a tag, a string, "
                "a token, the beginning of a tag, or nothing"
            )
        without = [
            text(one, "excludes")
            for one in items(shape.get("excludes") or [], "excludes", least=0)
            if one not in ends.texts
        ]
        times = "*" if most is None else f"{{0,{most}}}"
        end = f"(?:{'|'.join(map(escape, ends.texts))})" if ends.texts else ""
        body = " & ".join([f"/(?s:.{times}){end}/", *map(lacks, without)])
        name = f"TEXT_{len(self._lines)}"
        self._add(name, body)
        if not ends.texts:
            return f"{name} {ends.token}"
        lazy = f"text_{len(self._lines)}"
        self._add(f"{lazy}[lazy]", name)
        return lazy

    def _rule(self, body: str) -> str:
        name = f"part_{len(self._lines)}"
        self._add(name, body)
        return name

    def _add(self, name: str, body: str) -> None:
        if len(self._lines) > 8 * MAX_TAGS:
            raise ValueError(f"must hold at most {8 * MAX_TAGS} parts")
        self._characters += len(body)
        if self._characters > MAX_CHARACTERS:
            raise ValueError(f"must come to a grammar of at most {MAX_CHARACTERS} characters")
        self._lines.append(f"{name}: {body}")


# type: what makes it, and the fields that it may have
KINDS: Mapping[str, tuple[Callable[[_Parts, Shape, Ends], str], tuple[str, ...]]] = {
    "const_string": (_Parts.const_string, ("value",)),
    "any_text": (_Parts.any_text, ("excludes", "max_chars")),
    "regex": (_Parts.regex, ("pattern",)),
    "json_schema": (_Parts.json_schema, ("json_schema", "style", "any_order")),
    "grammar": (_Parts.grammar, ("grammar",)),
    "token": (_Parts.token, ("token",)),
    "any_tokens": (_Parts.any_tokens, ("exclude_tokens",)),
    "sequence": (_Parts.sequence, ("elements",)),
    "or": (_Parts.any_of, ("elements",)),
    "optional": (_Parts.optional, ("content",)),
    "star": (_Parts.star, ("content",)),
    "plus": (_Parts.plus, ("content",)),
    "repeat": (_Parts.repeat, ("content", "min", "max")),
    "tag": (_Parts.tag, ("begin", "content", "end")),
    "tags_with_separator": (
        _Parts.tags_with_separator,
        ("tags", "separator", "at_least_one", "stop_after_first"),
    ),
    "triggered_tags": (
        _Parts.triggered_tags,
        ("triggers", "tags", "excludes", "at_least_one", "stop_after_first"),
    ),
    "token_triggered_tags": (
        _Parts.token_triggered_tags,
        ("trigger_tokens", "tags", "exclude_tokens", "at_least_one", "stop_after_first"),
    ),
    "dispatch": (_Parts.dispatch, ("rules", "loop", "excludes")),
    "token_dispatch": (_Parts.dispatch, ("rules", "loop", "exclude_tokens")),
}
