"""A sentence for a value that a schema refuses."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from penstock_router.api.errors import ApiError, invalid

SHOWN_CHARACTERS = 64  # of a name

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


def shown(name: str) -> str:
    """A client's name for something, fit for a header, a log line and a sentence."""
    name = name[:SHOWN_CHARACTERS]
    return "".join(c if "!" <= c <= "~" and c not in ",`" else "?" for c in name)


def explain(refusal: ValidationError) -> ApiError:
    """A sentence that names field, rule and value of the first wrong field. Never the text of a
    value: it may be a prompt."""
    error = _most_telling(refusal.errors(include_url=False))
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
    return invalid(f"`{where}`: {rule}. Given: {describe(error['input'])}")


def describe(value: object) -> str:
    """A value without its text."""
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
