"""Closed schemas: every field known, every number finite and bounded, every refusal a sentence."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic_core import ErrorDetails

from penstock_router.api.errors import ApiError, invalid

INT32 = 2**31 - 1
MAX_STOP_CHARACTERS = 1024
MAX_BIASED_TOKENS = 1024

PositiveInt = Annotated[int, Field(gt=0, le=INT32)]
Count = Annotated[int, Field(ge=0, le=INT32)]
Positive = Annotated[float, Field(gt=0, le=100)]
# Logits are divided by it in float32: much less makes them infinite.
RepetitionPenalty = Annotated[float, Field(ge=0.01, le=100)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Share = Annotated[float, Field(gt=0, le=1)]  # of probability
Priority = Annotated[int, Field(ge=-100, le=100)]
StopSequence = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
TokenId = int  # bounds here would cost 15 us for 512; `admission` checks all `packed` ids at once
LogitBias = Annotated[
    dict[Annotated[str, Field(pattern=r"^[0-9]{1,10}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASED_TOKENS),
]

# Refused unless the value is one of these, which ask for nothing.
NEUTRAL: tuple[object, ...] = (None, False, [], {}, "")

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
    "inputs": "`inputs` cannot be empty",
    "messages": "`messages` cannot be empty",
}
_BELOW = ("greater_than", "greater_than_equal", "string_too_short", "too_short")
_PROMPT_RULE = (
    "`prompt` must be a string, a list of strings, a list of token ids or a list of lists of "
    "token ids, none of them empty"
)


def packed(ids: Any, check: ValidatorFunctionWrapHandler) -> Sequence[int]:
    """A list of token ids, 4 bytes each. check: by the schema, item by item.

    An array is filled in half the time of that check, refuses what is no integer, and leaves the
    garbage collector, which walks every list, nothing to walk. But it takes true and false for 1
    and 0, so where those stand the schema decides. Ids beyond 32 bits stay a tuple, which
    `admission` refuses.
    """
    tokens = _array(ids)
    if tokens and np.frombuffer(tokens, np.uint32).min() > 1:
        return tokens
    checked: list[int] = check(ids)
    return _array(checked) or tuple(checked)


def _array(ids: Any) -> array[int] | None:
    try:
        return array("I", ids)
    except (TypeError, OverflowError):
        return None


class ClosedModel(BaseModel):
    """A JSON object of a client. null is the same as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    # Fields that clients send and that change nothing here.
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    # Fields that ask for what the server cannot do, unless their value is neutral.
    UNSUPPORTED: ClassVar[Mapping[str, tuple[object, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _close(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept = {}
        for name, value in data.items():
            if value is None or name in cls.IGNORED:
                continue
            if name in cls.UNSUPPORTED:
                if not _among(value, cls.UNSUPPORTED[name]):
                    raise ValueError(f"`{name}` is not supported by this server")
                continue
            kept[name] = value
        return kept


def _among(value: object, neutral: tuple[object, ...]) -> bool:
    """Equality that tells False from 0."""
    return any(type(value) is type(item) and value == item for item in neutral)


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], body: object) -> M:
    """The client's object, checked. Raises ApiError that names the first wrong field."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _explain(_most_telling(error.errors(include_url=False))) from None


def _most_telling(errors: list[ErrorDetails]) -> ErrorDetails:
    """The first wrong field's error; of a choice between types the one that came furthest."""
    first = errors[0]["loc"][:1]
    own = [error for error in errors if error["loc"][:1] == first]
    return max(own, key=lambda error: (error["type"] == "value_error", len(error["loc"])))


def _is_name(part: int | str) -> bool:
    """Whether a part of a location is a field or an index, not a member of a union."""
    return isinstance(part, int) or (part.isidentifier() and part != "str")


def _explain(error: ErrorDetails) -> ApiError:
    """A sentence that names field, rule and value. Never the text of a value: it may be a
    prompt."""
    path = [str(part) for part in error["loc"] if _is_name(part)]
    name = path[-1] if path else "body"
    shown = ".".join(path) or "body"
    kind = error["type"]
    if path and path[0] == "prompt" and kind != "missing":
        return invalid(_PROMPT_RULE)
    if kind == "missing":
        return invalid(f"missing field `{shown}`")
    if kind == "extra_forbidden":
        return invalid(f"unknown field `{shown}`")
    if kind == "value_error":
        return invalid(str(error["ctx"]["error"]))
    if name in _TOO_SMALL and kind in _BELOW:
        return invalid(_TOO_SMALL[name])
    rule = error["msg"][0].lower() + error["msg"][1:]
    return invalid(f"`{shown}`: {rule}. Given: {_describe(error['input'])}")


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
