"""Dataclasses as messages that have the same fields, and back."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

Value = TypeVar("Value")
Wire = TypeVar("Wire", bound=Message)


class Convert(NamedTuple):
    """One field's value in both directions. None is never encoded: the field is not set."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _packed(tokens: Sequence[int]) -> bytes:
    return tokens.tobytes() if isinstance(tokens, array) else array("I", tokens).tobytes()


TOKENS = Convert(_packed, lambda packed: array("I", packed) if packed else ())


class Codec(Generic[Value, Wire]):
    """Translates a dataclass and the message with the same fields, field by field by name.

    A field that is not set has the dataclass's default. Those that are no plain values say how they
    are converted. Raises TypeError where one of the two has a field that the other lacks.
    """

    def __init__(self, value: type[Value], wire: type[Wire], **converts: Convert) -> None:
        fields = {field.name: field for field in wire.DESCRIPTOR.fields}
        names = {field.name for field in dataclasses.fields(value)}  # type: ignore[arg-type]
        if odd := (names ^ fields.keys()) | (converts.keys() - names):
            raise TypeError(f"{value.__name__} and its message differ in {', '.join(sorted(odd))}")
        self._value, self._wire = value, wire
        self._names = tuple(fields)
        self._encodes = tuple((name, convert.encode) for name, convert in converts.items())
        repeated = {name: tuple for name, field in fields.items() if field.is_repeated}
        self._decodes = repeated | {name: convert.decode for name, convert in converts.items()}
        self._optional = tuple(name for name, field in fields.items() if field.has_presence)

    def encode(self, value: Value, **instead: Any) -> Wire:
        """The message; instead: fields of it that have other values there."""
        fields = {name: getattr(value, name) for name in self._names}
        for name, encode in self._encodes:
            if name not in instead and fields[name] is not None:
                fields[name] = encode(fields[name])
        return self._wire(**fields | instead)

    def decode(self, message: Wire) -> Value:
        """What `encode` got, to float32's precision where the message has no more."""
        fields = {name: getattr(message, name) for name in self._names}
        for name in self._optional:
            if not message.HasField(name):
                del fields[name]
        for name, decode in self._decodes.items():
            if name in fields:
                fields[name] = decode(fields[name])
        return self._value(**fields)

    @property
    def nested(self) -> Convert:
        """For a field that holds such a message."""
        return Convert(self.encode, self.decode)
