"""What clients may send: every field honoured, ignored or refused, every value bounded.

Bounds hold before contents are looked at, and the first fault ends the look: a refusal costs no
more than the bytes that caused it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, cast

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema

from penstock_router.api.body_shape import MOST_VALUES, Shape, shape_of
from penstock_router.api.schema_errors import explain, shown

MAX_KEYS = 256  # of an object
MAX_SIZE = 32_768  # objects of a body and their keys; messages and parts are objects
SHOWN_NAMES = 20  # of ignored fields

# Refused unless the value is one of these, which ask for nothing.
NEUTRAL: tuple[object, ...] = (None, False, [], {}, "")

# What no route can do and no client may believe was done.
UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    # ways to choose tokens
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "use_beam_search": (False,),
    "num_return_sequences": (1,),
    "min_new_tokens": (0,),
    "stop_regex": NEUTRAL,
    "no_repeat_ngram_size": (0,),
    # grammars
    "grammar": NEUTRAL,
    "guided_json": NEUTRAL,
    "guided_regex": NEUTRAL,
    "guided_choice": NEUTRAL,
    "guided_grammar": NEUTRAL,
    "structured_outputs": NEUTRAL,
    "structural_tag": NEUTRAL,
    "json_schema": NEUTRAL,
    "regex": NEUTRAL,
    "ebnf": NEUTRAL,
    # adapters
    "adapter_id": NEUTRAL,
    "lora_path": NEUTRAL,
    # what is read and shown
    "prompt_embeds": (),
}


@dataclass(slots=True)
class Reading:
    """What is noticed while one body is read."""

    strict: bool = False  # unknown fields are refused
    unknown: dict[str, str] = field(default_factory=dict)  # the first ones, and how they are shown
    size: int = 0
    sent: frozenset[str] = frozenset()  # fields of the outermost object, null or not
    within: Shape = Shape()  # what stands in strings that are JSON themselves

    def enter(self, data: Mapping[str, object]) -> None:
        """An object is about to be read. Raises ValueError where it is too large, or all are."""
        if len(data) > MAX_KEYS:
            raise ValueError(
                f"an object of the body must have at most {MAX_KEYS} fields. Given: {len(data)}"
            )
        if not self.size:
            self.sent = frozenset(data)
        self.size += 1 + len(data)
        if self.size > MAX_SIZE:
            raise ValueError(f"the body must have at most {MAX_SIZE} fields, those of all objects")

    def loads(self, text: str, name: str) -> object:
        """What a string holds that is JSON itself; None where it is none. All such strings of a
        body together have the bound that the body has. Raises ValueError beyond it."""
        data = text.encode(errors="replace")
        self.within += shape_of(data)
        if fault := self.within.fault(MOST_VALUES):
            raise ValueError(f"`{name}` must have {fault}")
        try:
            return cast(object, orjson.loads(data))
        except orjson.JSONDecodeError:
            return None

    def ignore(self, name: str) -> None:
        """A field that is unknown. Raises ValueError where that is not allowed."""
        if self.strict:
            raise ValueError(f"unknown field `{shown(name)}`")
        if len(self.unknown) < SHOWN_NAMES and name not in self.unknown:
            self.unknown[name] = shown(name)

    @property
    def ignored(self) -> list[str]:
        """Names of unknown fields, fit for a header."""
        return list(self.unknown.values())


class ClientObject(BaseModel):
    """A JSON object of a client. null is the same as absent; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    # Where such an object stands in a body, as names of its fields are shown.
    PATH: ClassVar[str] = ""
    # Fields that change nothing here, whatever they say.
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    # Fields that ask for what the server cannot do, unless their value is one of these.
    UNSUPPORTED: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    # Of those the ones that ask for nothing while another field has a value: (field, value).
    WAIVED: ClassVar[Mapping[str, tuple[str, object]]] = {}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """As pydantic writes it; but what may be absent may be null."""
        shown = handler(schema)
        fields = handler.resolve_ref_schema(shown)
        for name, value in fields["properties"].items():
            kinds = value.get("anyOf", [value])
            if name not in fields.get("required", ()) and {"type": "null"} not in kinds:
                fields["properties"][name] = {"anyOf": [*kinds, {"type": "null"}]}
        return shown

    @model_validator(mode="before")
    @classmethod
    def _sort(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict):
            return data
        reading: Reading = info.context or Reading()
        reading.enter(data)
        known, ignored, unsupported = _names(cls), cls.IGNORED, cls.UNSUPPORTED
        kept = {}
        for name, value in data.items():
            if name in known:
                if value is not None:
                    kept[name] = value
            elif value is None or name in ignored:
                continue
            elif name not in unsupported:
                reading.ignore(cls.PATH + name)
            elif not _among(value, unsupported[name]):
                if not cls._is_waived(name, data):
                    raise ValueError(f"`{cls.PATH}{name}` is not supported by this server")
                reading.ignore(cls.PATH + name)
        return kept

    @classmethod
    def _is_waived(cls, name: str, data: Mapping[str, object]) -> bool:
        other, value = cls.WAIVED.get(name, ("", ""))
        return other in data and data[other] == value


@functools.cache
def _names(model: type[BaseModel]) -> frozenset[str]:
    """Fields as clients call them."""
    return frozenset(field.alias or name for name, field in model.model_fields.items())


def _among(value: object, neutral: tuple[object, ...]) -> bool:
    """Equality that tells False from 0."""
    return any(type(value) is type(item) and value == item for item in neutral)


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], body: object, reading: Reading | None = None) -> M:
    """The client's object, checked. Raises ApiError that names the first wrong field."""
    try:
        return model.model_validate(body, context=reading or Reading())
    except ValidationError as error:
        raise explain(error) from None
