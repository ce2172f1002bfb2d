"""Grammars of every kind that a client may name. What is wrong is a ValueError with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.structured.json_schema import ANY_OBJECT, json_schema
from penstock_router.structured.lark import check_length, is_gbnf, lark_text
from penstock_router.structured.tags import structural_tag

MAX_PATTERN_CHARACTERS = 16_384
MAX_TAG_BYTES = 262_144  # of a structural tag as a text
MAX_CHOICES = 4096
MAX_CHOICE_CHARACTERS = 65_536  # of all together


def regex(value: object) -> Grammar:
    """The whole text matches, so one `^` in front and one `$` behind say nothing."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a regular expression, a string that is not empty")
    if len(value) > MAX_PATTERN_CHARACTERS:
        raise ValueError(
            f"must have at most {MAX_PATTERN_CHARACTERS} characters. Given: {len(value)}"
        )
    return Grammar(GrammarKind.REGEX, value)


def choice(value: object) -> Grammar:
    """One of some texts."""
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError("must be a list of strings that is not empty")
    if len(value) > MAX_CHOICES or sum(map(len, value)) > MAX_CHOICE_CHARACTERS:
        raise ValueError(
            f"must have at most {MAX_CHOICES} strings of {MAX_CHOICE_CHARACTERS} characters in all"
        )
    if "" in value:
        raise ValueError("must hold no empty string")
    quoted = (orjson.dumps(text).decode() for text in dict.fromkeys(value))
    return Grammar(GrammarKind.LARK, f"start: {' | '.join(quoted)}\n")


def lark_or_gbnf(value: object) -> Grammar:
    """A context-free grammar, in Lark's or in llama.cpp's notation."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a grammar, a string that is not empty")
    check_length(value)
    if is_gbnf(value):
        return Grammar(GrammarKind.GBNF, value)
    return Grammar(GrammarKind.LARK, lark_text(value))


def any_object(value: object) -> Grammar:
    """Any JSON object, or none where it is switched off."""
    if value is not True and not isinstance(value, Mapping):
        raise ValueError("must be true")
    return Grammar(GrammarKind.JSON_SCHEMA, ANY_OBJECT)


def tags(value: object) -> Grammar:
    """Free text with structured parts in it."""
    if isinstance(value, str):
        if len(value) > MAX_TAG_BYTES:
            raise ValueError(f"must have at most {MAX_TAG_BYTES} characters. Given: {len(value)}")
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"must be a JSON object: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError("must be an object")
    return Grammar(GrammarKind.LARK, structural_tag(value))


KINDS: Mapping[str, Callable[[Any], Grammar]] = {
    "json": json_schema,
    "json_schema": json_schema,
    "json_object": any_object,
    "regex": regex,
    "choice": choice,
    "grammar": lark_or_gbnf,
    "ebnf": lark_or_gbnf,
    "lark": lark_or_gbnf,
    "structural_tag": tags,
}


def grammar_from(kind: str, value: object) -> Grammar:
    """The grammar of a kind in KINDS. Raises ValueError with the end of a sentence that begins with
    the field's name."""
    try:
        return KINDS[kind](value)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
