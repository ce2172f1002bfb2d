"""What a program does before it looks at an argument: the beginning that all its runs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from penstock.lang.expressions import (
    Expression,
    Parts,
    RoleBegin,
    RoleEnd,
    ScopeBegin,
    ScopeEnd,
    Series,
    Text,
    parts_of,
)
from penstock.lang.prompt import Piece, Prompt
from penstock.lang.turns import Turns


class _Seen(BaseException):
    """The function looked at an argument, so its further way is not known."""


@dataclass(frozen=True, slots=True)
class Argument(Expression):
    """Stands for an argument, or for what a run would generate. It may be added to text; whoever
    looks into it ends the trace."""

    name: str

    def _look(self, *_: Any, **__: Any) -> Any:
        raise _Seen

    __str__ = __format__ = __bool__ = __len__ = __iter__ = __getitem__ = __call__ = _look
    __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __int__ = __float__ = __mod__ = _look
    __mul__ = __sub__ = __index__ = __next__ = _look

    def __getattr__(self, name: str) -> Any:
        raise _Seen

    def __eq__(self, other: object) -> bool:
        raise _Seen

    def __hash__(self) -> int:
        raise _Seen


@dataclass(frozen=True, slots=True)
class Trace:
    """parts: what was added to the state, in order, with an `Argument` for what was not known.
    complete: the function came to its end."""

    parts: Parts
    complete: bool
    prefix: Prompt = field(default_factory=Prompt)  # what stands before all that was not known


class _State(Turns):
    """What a function gets instead of a state. Its forks are not followed."""

    def __init__(self) -> None:
        self.parts: list[Expression] = []

    def __iadd__(self, other: Any) -> _State:
        self.parts += parts_of(other)
        return self

    def __getitem__(self, name: str) -> Argument:
        return Argument(name)

    get_var = __getitem__

    def __setitem__(self, name: str, value: Any) -> None:
        """A trace has no use for it."""

    set_var = __setitem__

    def __getattr__(self, name: str) -> Any:
        raise _Seen  # fork, text, meta data: what a run would have to be asked

    def var_scope(self, name: str) -> Any:
        return self._between(ScopeBegin(name), ScopeEnd(name))

    @contextmanager
    def _between(self, begin: Expression, end: Expression) -> Iterator[_State]:
        self.parts.append(begin)
        yield self
        self.parts.append(end)


def traced(func: Callable[..., Any], names: Sequence[str], given: Mapping[str, Any]) -> Trace:
    """Run a function with placeholders for the arguments that are not given."""
    state = _State()
    arguments = {name: given[name] if name in given else Argument(name) for name in names}
    complete = True
    try:
        func(state, **arguments)
    except _Seen:
        complete = False
    parts = tuple(state.parts)
    return Trace(parts, complete, _prefix(parts))


def _prefix(parts: Parts) -> Prompt:
    prompt = Prompt()
    for part in _flat(parts):
        match part:
            case Text(text=text):
                prompt = prompt.written(Piece(text))
            case RoleBegin(role=role):
                prompt = prompt.opened(role)
            case RoleEnd(role=role):
                prompt = prompt.closed(role)
            case ScopeBegin() | ScopeEnd():
                pass
            case _:
                break
    return prompt


def _flat(parts: Parts) -> Iterator[Expression]:
    for part in parts:
        if isinstance(part, Series):
            yield from _flat(part.parts)
        else:
            yield part
