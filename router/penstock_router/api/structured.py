"""Fields of all APIs that hold the answer to a grammar, and the one grammar that they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from penstock_router.api.errors import from_engine, invalid
from penstock_router.api.schema import UNSUPPORTED, ClientObject
from penstock_router.api.schema_types import AtMost
from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.request import BadGrammar
from penstock_router.structured import grammar_from
from penstock_router.structured.json_schema import json_schema
from penstock_router.structured.kinds import MAX_CHOICES
from penstock_router.structured.lark import converted
from penstock_router.structured.tag_fields import MAX_TAGS

AnyObject = dict[str, Any]
Schema = AnyObject | str | bool
Choices = Annotated[list[str], AtMost(MAX_CHOICES)]
Wanted = tuple[str, Callable[[], Grammar]]  # a field, and the grammar it asks for


class Asked:
    """The grammar that a field asks for. It is made when it is needed, once: that takes Python up
    to a second, so it is no work for the event loop."""

    def __init__(self, name: str, make: Callable[[], Grammar]) -> None:
        """name: of the field. make: raises ValueError with the end of a sentence."""
        self.name = name
        self._make = make
        self._made: Grammar | None = None

    def grammar(self) -> Grammar:
        """Raises ApiError (422) that begins with the field's name."""
        if self._made is None:
            self._made = replace(self._first(), asked_by=self.name)
        return self._made

    def _first(self) -> Grammar:
        try:
            made = self._make()
            return converted(made) if made.kind is GrammarKind.GBNF else made
        except BadGrammar as error:
            raise from_engine(error, self.name) from error
        except ValueError as error:
            raise invalid(f"`{self.name}` {error}") from None
        except RecursionError:
            raise invalid(f"`{self.name}` is nested too deeply") from None


def asked(kind: str, value: object, name: str) -> Asked:
    """kind: one of `penstock_router.structured.KINDS`; name: of the field."""
    return Asked(name, _maker(kind, value))


def only(wanted: Sequence[Wanted]) -> Asked | None:
    """The grammar of the one field that has one. Raises ApiError where several do."""
    if len(wanted) > 1:
        names = ", ".join(f"`{name}`" for name, _ in wanted)
        raise invalid(f"an answer can be held to one grammar only. Given: {names}")
    return Asked(*wanted[0]) if wanted else None


def flat_format(wanted: AnyObject | None, field: str) -> Asked | None:
    """A format as /v1/responses and Anthropic's API have it: the schema stands beside its type.
    Raises ApiError."""
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return asked("json_object", True, field)
        case {"type": "json_schema", "schema": schema}:
            return asked("json_schema", schema, f"{field}.schema")
        case {"type": "structural_tag"}:
            return asked("structural_tag", wanted, field)
        case {"type": "json_schema"}:
            raise invalid(f"missing field `{field}.schema`")
    raise invalid(f"`{field}.type` must be `text`, `json_object` or `json_schema`")


# What stays refused where these fields are read.
UNSTRUCTURED = {
    name: neutral
    for name, neutral in UNSUPPORTED.items()
    if not name.startswith("guided_")
    and name not in ("structured_outputs", "structural_tag", "regex", "ebnf", "json_schema")
}


class GrammarField(ClientObject):
    """TGI's `grammar`, and `response_format` as TGI's own clients write it."""

    PATH: ClassVar = "grammar."

    type: Literal["json", "json_object", "json_schema", "regex"]
    value: Any

    def make(self) -> Grammar:
        """The grammar. Raises ValueError."""
        value = self.value
        if self.type == "json_schema" and isinstance(value, dict) and "schema" in value:
            value = value["schema"]
        return grammar_from("regex" if self.type == "regex" else "json", value)


class NamedSchema(ClientObject):
    """`json_schema` of OpenAI's `response_format`."""

    PATH: ClassVar = "response_format.json_schema."

    schema_: Annotated[Schema, Field(alias="schema")]
    name: Annotated[str, Field(max_length=256)] | None = None
    description: str | None = None
    strict: bool | None = None  # the schema holds in any case


class ResponseFormat(ClientObject):
    """`response_format`: OpenAI's types, vLLM's structural tags, and TGI's types with a value."""

    PATH: ClassVar = "response_format."

    type: Literal["text", "json_object", "json_schema", "structural_tag", "json", "regex"]
    json_schema: NamedSchema | None = None
    value: Any = None
    # of structural tags
    structures: Annotated[list[AnyObject], AtMost(MAX_TAGS)] | None = None
    triggers: Annotated[list[str], AtMost(MAX_TAGS)] | None = None
    format: AnyObject | None = None

    def wanted(self) -> list[Wanted]:
        """What it asks for."""
        if self.type == "text":
            return []
        return [("response_format", self._make)]

    def _make(self) -> Grammar:
        if self.json_schema is not None and self.type == "json_schema":
            return grammar_from("json_schema", self.json_schema.schema_)
        if self.type == "structural_tag":
            shape = {"structures": self.structures, "triggers": self.triggers}
            return grammar_from(
                "structural_tag", shape if self.format is None else {"format": self.format}
            )
        if self.value is not None:
            return GrammarField(type=self.type, value=self.value).make()  # type: ignore[arg-type]
        if self.type == "json_object":
            return grammar_from("json_object", True)
        needed = "json_schema" if self.type == "json_schema" else "value"
        raise ValueError(f"of the type `{self.type}` must have `{needed}`")


class StructuredOutputs(ClientObject):
    """vLLM's `structured_outputs`."""

    PATH: ClassVar = "structured_outputs."
    IGNORED: ClassVar = frozenset({"disable_fallback", "backend", "backend_was_auto"})

    json_: Annotated[Schema | None, Field(alias="json")] = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | AnyObject | None = None
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False

    def wanted(self) -> list[Wanted]:
        """What it asks for; at most one may."""
        found: list[Wanted] = []
        if self.json_ is not None:
            found.append(("structured_outputs.json", self._schema))
        if self.json_object:
            found.append(("structured_outputs.json_object", self._object))
        for name in ("regex", "choice", "grammar", "structural_tag"):
            value = getattr(self, name)
            if value is not None:
                found.append((f"structured_outputs.{name}", _maker(name, value)))
        return found

    def _schema(self) -> Grammar:
        return self._styled(self.json_)

    def _object(self) -> Grammar:
        return self._styled({"type": "object"})

    def _styled(self, schema: object) -> Grammar:
        return json_schema(
            schema,
            white_space=self.whitespace_pattern,
            compact=self.disable_any_whitespace,
            closed=self.disable_additional_properties,
        )


def _maker(kind: str, value: object) -> Callable[[], Grammar]:
    return lambda: grammar_from(kind, value)


class Structured(ClientObject):
    """What requests of OpenAI's routes may say: OpenAI's field, vLLM's and its older ones, and
    those that SGLang has there."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    guided_whitespace_pattern: str | None = None
    structural_tag: str | AnyObject | None = None
    regex: str | None = None
    ebnf: str | None = None
    json_schema: Schema | None = None

    def grammar(self) -> Asked | None:
        """The one that the answer is held to. Raises ApiError (422) where several are."""
        wanted: list[Wanted] = []
        if self.response_format is not None:
            wanted += self.response_format.wanted()
        if self.structured_outputs is not None:
            wanted += self.structured_outputs.wanted()
        if self.guided_json is not None:
            wanted.append(("guided_json", self._guided_json))
        for name, kind in _GUIDED.items():
            value = getattr(self, name)
            if value is not None:
                wanted.append((name, _maker(kind, value)))
        for name, kind in _SGLANG.items():
            if value := getattr(self, name):
                wanted.append((name, _maker(kind, value)))
        return only(wanted)

    def _guided_json(self) -> Grammar:
        return json_schema(self.guided_json, white_space=self.guided_whitespace_pattern)


_GUIDED = {
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "structural_tag": "structural_tag",
}
_SGLANG = {"regex": "regex", "ebnf": "grammar", "json_schema": "json"}  # an empty one is none
