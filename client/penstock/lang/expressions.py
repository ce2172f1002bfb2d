"""What a program adds to its state: text, generated text, choices, images, turns.

Expressions add up to sequences, so `"a" + gen("x") + "b"` is one. They say what is to be done and
do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.lang.choices import Method, token_length_normalized

Parts = tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Expression:
    """Base of all."""

    def __add__(self, other: Any) -> Series:
        return Series((*parts_of(self), *parts_of(other)))

    def __radd__(self, other: Any) -> Series:
        return Series((*parts_of(other), *parts_of(self)))


@dataclass(frozen=True, slots=True)
class Series(Expression):
    """Expressions one behind the other."""

    parts: Parts = ()


@dataclass(frozen=True, slots=True)
class Text(Expression):
    """Text of the program's own."""

    text: str


@dataclass(frozen=True, slots=True)
class Gen(Expression):
    """Text that the model writes. overrides: fields of `Sampling` that differ from the run's."""

    name: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Select(Expression):
    """The choice that the model holds for likeliest."""

    name: str | None
    choices: Sequence[str]
    method: Method = token_length_normalized


@dataclass(frozen=True, slots=True)
class Image(Expression):
    """An image: a path, its bytes, or a PIL image."""

    source: Any


@dataclass(frozen=True, slots=True)
class RoleBegin(Expression):
    """A turn of the conversation begins."""

    role: str


@dataclass(frozen=True, slots=True)
class RoleEnd(Expression):
    """It ends."""

    role: str


@dataclass(frozen=True, slots=True)
class ScopeBegin(Expression):
    """From here on text is kept under a name."""

    name: str


@dataclass(frozen=True, slots=True)
class ScopeEnd(Expression):
    """Up to here."""

    name: str


@dataclass(frozen=True, slots=True)
class SeparateReasoning(Expression):
    """What is generated in `inner` is split into what was thought and what was said."""

    inner: Expression


@dataclass(frozen=True, slots=True)
class Join(Expression):
    """The texts of forks, one behind the other."""

    texts: tuple[Any, ...]  # of `Prompt`: what each fork has added


def parts_of(value: Any) -> Parts:
    """A value as expressions. Raises TypeError for what is neither text nor an expression."""
    match value:
        case str():
            return (Text(value),)
        case Series(parts=parts):
            return parts
        case Expression():
            return (value,)
        case list() | tuple():
            return tuple(part for item in value for part in parts_of(item))
    raise TypeError(
        "a state takes text and expressions such as gen(…), or lists of them. "
        f"Given: {type(value).__name__}"
    )
