"""What clients may send: every field honoured, ignored or refused, every value bounded.

Bounds hold before contents are looked at, and the first fault ends the look: a refusal costs no
more than the bytes that caused it.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeVar, cast

import numpy as np
import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from penstock_router.api.body_shape import MOST_VALUES, Shape, shape_of
from penstock_router.api.errors import ApiError, invalid

INT32 = 2**31 - 1
MAX_STOP_CHARACTERS = 1024
MAX_BIASED_TOKENS = 1024
MAX_KEYS = 256  # of an object
MAX_SIZE = 32_768  # objects of a body and their keys; messages and parts are objects
SHOWN_NAMES = 20  # of ignored fields
SHOWN_CHARACTERS = 64  # of a name


@dataclass(frozen=True, slots=True)
class AtMost:
    """Bounds a list, and lets it fail at its first wrong item."""

    items: int

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema: dict[str, Any] = dict(handler(source))
        assert schema["type"] == "list"
        return cast(CoreSchema, {**schema, "max_length": self.items, "fail_fast": True})


def _whole(value: object) -> object:
    """JSON has no integers: programs whose language has none either write 20.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole)]
PositiveInt = Annotated[Integer, Field(gt=0, le=INT32)]
Count = Annotated[Integer, Field(ge=0, le=INT32)]
Positive = Annotated[float, Field(gt=0, le=100)]
# Logits are divided by it in float32: much less makes them infinite.
RepetitionPenalty = Annotated[float, Field(ge=0.01, le=100)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Share = Annotated[float, Field(gt=0, le=1)]  # of probability
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Priority = Annotated[Integer, Field(ge=-100, le=100)]
# vLLM's. Whatever it says, it costs a hash.
CacheSalt = Annotated[str, Field(min_length=1, max_length=1024)]
StopSequence = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
StopSequences = Annotated[list[StopSequence], AtMost(256)]


def _token_biases(value: Any) -> dict[str, float]:
    """OpenAI's map, whose keys are token ids as strings. TGI typed it as a list and read none."""
    rule = "`logit_bias` must map token ids to numbers >= -100 and <= 100"
    if value == []:
        return {}
    if not isinstance(value, dict):
        raise ValueError(rule)
    if len(value) > MAX_BIASED_TOKENS:
        raise ValueError(
            f"`logit_bias` must hold at most {MAX_BIASED_TOKENS} tokens. Given: {len(value)}"
        )
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit() and len(token) <= 10):
            raise ValueError(f"{rule}. Given: `{shown(token)}`")
        if type(bias) not in (int, float) or not -100 <= bias <= 100:
            raise ValueError(f"{rule}. Given: {_describe(bias)}")
    return {token: float(bias) for token, bias in value.items()}


LogitBias = Annotated[
    dict[str, float],
    PlainValidator(_token_biases),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,10}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            "maxProperties": MAX_BIASED_TOKENS,
        }
    ),
]

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

# TGI's sentences for values below a bound.
_TOO_SMALL = {
    "temperature": "`temperature` must be strictly positive",
    "repetition_penalty": "`repetition_penalty` must be strictly positive, >= 0.01",
    "frequency_penalty": "`frequency_penalty` must be >= -2.0 and <= 2.0",
    "presence_penalty": "`presence_penalty` must be >= -2.0 and <= 2.0",
    "top_k": "`top_k` must be strictly positive",
    "top_p": "`top_p` must be > 0.0 and <= 1.0",
    "typical_p": "`typical_p` must be > 0.0 and <= 1.0",
    "max_new_tokens": "`max_new_tokens` must be strictly positive",
    "max_tokens": "`max_tokens` must be strictly positive",
    "max_completion_tokens": "`max_completion_tokens` must be strictly positive",
    "max_time": "`max_time` must be strictly positive",
    "inputs": "`inputs` cannot be empty",
    "messages": "`messages` cannot be empty",
}
_BELOW = ("greater_than", "greater_than_equal", "string_too_short", "too_short")


def packed(ids: list[Any]) -> Sequence[int]:
    """A list of token ids, 4 bytes each. Raises TypeError for what is none.

    An array is filled at once, and leaves the garbage collector, which walks every list, nothing
    to walk. It takes true and false for 1 and 0, so where those stand all types are looked at.
    Ids beyond 32 bits stay a tuple, which `admission` refuses.
    """
    try:
        tokens = array("I", ids)
    except OverflowError:
        tokens = None
    has_flags = tokens is None or np.frombuffer(tokens, np.uint32).min() <= 1
    if has_flags and set(map(type, ids)) != {int}:
        raise TypeError("token ids are integers")
    return tokens or tuple(ids)


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A field that holds from `least` to `most` token ids, which are packed."""

    most: int
    least: int = 1

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def check(value: Any, info: ValidationInfo) -> Sequence[int]:
            rule = f"`{info.field_name}` must be a list of {self.least} to {self.most} token ids"
            if not isinstance(value, list) or not self.least <= len(value) <= self.most:
                raise ValueError(rule)
            if not value:
                return value
            try:
                ids = packed(value)
            except TypeError:
                raise ValueError(rule) from None
            if not isinstance(ids, array):
                raise ValueError(f"{rule}, each >= 0 and < 2^32")
            return ids

        return core_schema.with_info_plain_validator_function(check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        item = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
        return {"type": "array", "items": item, "minItems": self.least, "maxItems": self.most}


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


def shown(name: str) -> str:
    """A client's name for something, fit for a header, a log line and a sentence."""
    name = name[:SHOWN_CHARACTERS]
    return "".join(c if "!" <= c <= "~" and c not in ",`" else "?" for c in name)


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
        raise _explain(_most_telling(error.errors(include_url=False))) from None


def _most_telling(errors: list[ErrorDetails]) -> ErrorDetails:
    """The first wrong field's error; of a choice between types the one that came furthest."""
    first = errors[0]["loc"][:1]
    own = [error for error in errors if error["loc"][:1] == first]
    return max(own, key=_telling)


def _telling(error: ErrorDetails) -> tuple[bool, int, bool]:
    """That a value is of another type says the least: it is not what the client meant."""
    kind = error["type"]
    return kind == "value_error", len(error["loc"]), not kind.endswith("_type")


def _is_name(part: int | str) -> bool:
    """Whether a part of a location is a field or an index, not a member of a union."""
    return isinstance(part, int) or (part.isidentifier() and part != "str")


def _explain(error: ErrorDetails) -> ApiError:
    """A sentence that names field, rule and value. Never the text of a value: it may be a
    prompt."""
    path = [str(part) for part in error["loc"] if _is_name(part)]
    name = path[-1] if path else "body"
    where = ".".join(path) or "body"
    kind = error["type"]
    if kind == "missing":
        return invalid(f"missing field `{where}`")
    if kind == "value_error":
        return invalid(str(error["ctx"]["error"]))
    if name in _TOO_SMALL and kind in _BELOW:
        return invalid(_TOO_SMALL[name])
    rule = error["msg"][0].lower() + error["msg"][1:]
    return invalid(f"`{where}`: {rule}. Given: {_describe(error['input'])}")


def _describe(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:.17g}" if isinstance(value, float) else str(value)
        case str():
            return f"a string of {len(value)} characters"
        case list():
            return f"a list of {len(value)} items"
        case dict():
            return f"an object of {len(value)} fields"
    return "null" if value is None else "a value of another kind"
