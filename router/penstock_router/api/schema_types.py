"""Types of values that clients send, each with its bounds."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import numpy as np
from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from penstock_router.api.schema_errors import describe, shown

INT32 = 2**31 - 1
MAX_STOP_CHARACTERS = 1024
MAX_BIASED_TOKENS = 1024


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
            raise ValueError(f"{rule}. Given: {describe(bias)}")
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
