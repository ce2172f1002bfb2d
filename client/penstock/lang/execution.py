"""Runs what a program adds to its state: the part of a state that works.

It runs in the lane of the state, one expression after the other. What it changes, others see under
`lane.changed`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from penstock.lang.backend import Backend, Generation
from penstock.lang.expressions import (
    Expression,
    Gen,
    Image,
    Join,
    RoleBegin,
    RoleEnd,
    ScopeBegin,
    ScopeEnd,
    Select,
    SeparateReasoning,
    Series,
    Text,
    parts_of,
)
from penstock.lang.images import refuse
from penstock.lang.lane import Lane
from penstock.lang.prompt import Piece, Prompt
from penstock.lang.sampling import Sampling

INSTANT = (Text, RoleBegin, RoleEnd, ScopeBegin, ScopeEnd)  # these need no backend


@dataclass(slots=True)
class Variable:
    """A named value. While it is generated `value` grows."""

    value: Any = ""
    meta: Any = field(default_factory=dict)
    complete: bool = False


class Execution:
    """A prompt that grows, and the variables that came of it."""

    def __init__(
        self,
        backend: Backend,
        sampling: Sampling,
        *,
        streams: bool = False,
        threaded: bool = True,
        prompt: Prompt | None = None,
        variables: dict[str | None, Variable] | None = None,
        written: str = "",
    ) -> None:
        """sampling: what `gen` overrides. streams: variables grow with each token."""
        self.backend = backend
        self.sampling = sampling
        self.streams = streams
        self.lane = Lane(threaded)
        self.prompt = prompt or Prompt()
        self.variables: dict[str | None, Variable] = dict(variables or {})
        self.written = written  # all text of program and model, without what templates add
        self.children: list[Execution] = []
        self.body: threading.Thread | None = None  # runs the program's function just now
        self._growing = ""  # of `written`: what is being generated
        self._scopes: dict[str, int] = {}

    def fork(self) -> Execution:
        """One that goes on from here on its own. All that was added must have ended."""
        child = Execution(
            self.backend,
            self.sampling,
            streams=self.streams,
            threaded=self.lane.threaded,
            prompt=self.prompt,
            variables=self.variables,
            written=self.written,
        )
        self.children.append(child)
        return child

    def add(self, value: Any) -> None:
        """Text, an expression, or a list of them. Raises TypeError for anything else, and the error
        of what was added before."""
        for part in parts_of(value):
            self.lane.add(partial(self._execute, part), instant=isinstance(part, INSTANT))

    def finish(self) -> None:
        """Wait for this and all forks. Raises the first error."""
        self.lane.wait()
        for child in self.children:
            child.finish()

    def over(self) -> bool:
        """Nothing will change any more, as far as this thread may wait for it."""
        return self.lane.idle and self.body in (None, threading.current_thread())

    def complete(self, name: str | None) -> Variable:
        """A variable that is complete, which is waited for. Raises KeyError where it does not come,
        and the error for which it does not."""
        lane = self.lane

        def ready() -> bool:
            found = self.variables.get(name)
            return (found is not None and found.complete) or lane.error is not None or self.over()

        with lane.changed:
            lane.changed.wait_for(ready)
            found = self.variables.get(name)
            if found is not None and found.complete:
                return found
            lane.raise_error()
        raise KeyError(name)

    def set(self, name: str | None, value: Any, meta: Any = None) -> None:
        """A variable: of the program's own, of what it generated, or of what forks found."""
        with self.lane.changing():
            self.variables[name] = Variable(value, {} if meta is None else meta, complete=True)

    def shown(self) -> str:
        """`written` with what is being generated."""
        return self.written + self._growing

    def _execute(self, expression: Expression) -> None:
        _RUNS[type(expression)](self, expression)

    def _write(self, piece: Piece) -> None:
        with self.lane.changing():
            self.prompt = self.prompt.written(piece)
            self.written += piece.text
            self._growing = ""

    def _series(self, series: Series) -> None:
        for part in series.parts:
            self._execute(part)

    def _text(self, text: Text) -> None:
        self._write(Piece(text.text))

    def _gen(self, gen: Gen, **more: Any) -> None:
        sampling = self.sampling.changed({**gen.overrides, **more})
        stream = self.streams and sampling.n == 1 and not sampling.separate_reasoning
        answer = self._streamed(gen, sampling) if stream else self._whole(sampling)
        several = isinstance(answer.text, list)
        text = answer.text[0] if isinstance(answer.text, list) else answer.text
        self._write(_piece(text, answer.meta[0] if isinstance(answer.meta, list) else answer.meta))
        value: Any = answer.text
        if sampling.separate_reasoning:
            value = _each(answer.meta, "content", several)
            if gen.name is not None:
                thought = _each(answer.meta, "reasoning_content", several)
                self.set(f"{gen.name}_reasoning_content", thought)
        self.set(gen.name, value, answer.meta)

    def _whole(self, sampling: Sampling) -> Generation:
        return self.backend.generate(self.prompt, sampling)

    def _streamed(self, gen: Gen, sampling: Sampling) -> Generation:
        with self.lane.changing():
            variable = self.variables[gen.name] = Variable()
        answer = Generation("", {})
        for answer in self.backend.stream(self.prompt, sampling):
            with self.lane.changing():
                variable.value = self._growing = str(answer.text)
                variable.meta = answer.meta
        return answer

    def _select(self, select: Select) -> None:
        picked = self.backend.select(self.prompt, select.choices, select.method)
        self._write(Piece(picked.choice))
        if select.name is not None:
            self.set(select.name, picked.choice, picked.meta)

    def _separate(self, separate: SeparateReasoning) -> None:
        for part in parts_of(separate.inner):
            if isinstance(part, Gen):
                self._gen(part, separate_reasoning=True)
            else:
                self._execute(part)

    def _image(self, image: Image) -> None:
        refuse(image.source, self.backend)

    def _begin(self, role: RoleBegin) -> None:
        with self.lane.changing():
            self.prompt = self.prompt.opened(role.role)

    def _end(self, role: RoleEnd) -> None:
        with self.lane.changing():
            self.prompt = self.prompt.closed(role.role)

    def _scope_begins(self, scope: ScopeBegin) -> None:
        self._scopes[scope.name] = len(self.written)

    def _scope_ends(self, scope: ScopeEnd) -> None:
        self.set(scope.name, self.written[self._scopes.pop(scope.name) :])

    def _join(self, join: Join) -> None:
        for more in join.texts:
            with self.lane.changing():
                self.prompt = self.prompt.joined(more)
                self.written += "".join(m.content for m in more.messages) + more.text


_RUNS: dict[type[Expression], Callable[..., None]] = {
    Series: Execution._series,
    Text: Execution._text,
    Gen: Execution._gen,
    Select: Execution._select,
    SeparateReasoning: Execution._separate,
    Image: Execution._image,
    RoleBegin: Execution._begin,
    RoleEnd: Execution._end,
    ScopeBegin: Execution._scope_begins,
    ScopeEnd: Execution._scope_ends,
    Join: Execution._join,
}


def _piece(text: str, meta: dict[str, Any]) -> Piece:
    """What a model wrote, as the conversation goes on from it."""
    if "tool_calls" not in meta:
        return Piece(text)
    calls = tuple(meta["tool_calls"])
    return Piece(text, meta.get("content", text), meta.get("reasoning_content", ""), calls)


def _each(meta: Any, name: str, several: bool) -> Any:
    return [one.get(name, "") for one in meta] if several else meta.get(name, "")
