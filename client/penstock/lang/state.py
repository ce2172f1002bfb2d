"""The `s` of a program: what it adds text to, and reads variables from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from penstock.lang.execution import Execution
from penstock.lang.expressions import ScopeBegin, ScopeEnd
from penstock.lang.forks import ForkedStates
from penstock.lang.turns import Turns


class ProgramState(Turns):
    """`s += …` adds text and expressions, which run in order in the background; reading waits.

    An error of one of them is raised where the program adds more, reads, or ends.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.ret_value: Any = None  # what the program's function returned

    def __iadd__(self, other: Any) -> ProgramState:
        self.execution.add(other)
        return self

    def __getitem__(self, name: str | None) -> Any:
        """A variable; waits until it is complete. Raises KeyError, and errors of the program."""
        return self.execution.complete(name).value

    def __setitem__(self, name: str, value: Any) -> None:
        self.execution.set(name, value)

    def __contains__(self, name: str | None) -> bool:
        """Whether there is such a variable, once all that was added has ended."""
        try:
            self.execution.complete(name)
        except KeyError:
            return False
        return True

    def __repr__(self) -> str:
        return f"ProgramState({self.execution.shown()!r})"

    get_var = __getitem__
    set_var = __setitem__

    def get_meta_info(self, name: str | None) -> Any:
        """What the backend says of a variable: tokens, why it ended, log-probabilities, calls."""
        return self.execution.complete(name).meta

    def sync(self) -> None:
        """Wait until all that was added has ended. Raises its error."""
        self.execution.lane.wait()

    def error(self) -> BaseException | None:
        """The error of the program, or None. Waits until all that was added has ended."""
        lane = self.execution.lane
        with lane.changed:
            lane.changed.wait_for(lambda: self.execution.over() or lane.error is not None)
            return lane.error

    def text(self) -> str:
        """All text as the model reads it, with what the chat template adds to turns."""
        self.sync()
        return self.execution.backend.text(self.execution.prompt)

    def messages(self) -> list[dict[str, Any]]:
        """The turns that have ended, in OpenAI's shape."""
        self.sync()
        return [message.shown for message in self.execution.prompt.messages]

    @contextmanager
    def _between(self, begin: Any, end: Any) -> Iterator[ProgramState]:
        self.execution.add(begin)
        yield self
        self.execution.add(end)

    @contextmanager
    def var_scope(self, name: str) -> Iterator[ProgramState]:
        """The text that is added within becomes a variable."""
        with self._between(ScopeBegin(name), ScopeEnd(name)):
            yield self

    def fork(self, size: int = 1, position_ids_offset: None = None) -> ForkedStates:
        """So many states that go on from here, each on its own and all at once."""
        if size < 1:
            raise ValueError(f"`size` must be at least 1. Given: {size}")
        if position_ids_offset is not None:
            raise ValueError("`position_ids_offset` must be None: positions follow from the text")
        self.sync()
        return ForkedStates(self, [ProgramState(self.execution.fork()) for _ in range(size)])

    @contextmanager
    def copy(self, position_ids_offset: None = None) -> Iterator[ProgramState]:
        """A fork of one, joined at the end."""
        forks = self.fork(1, position_ids_offset)
        yield forks[0]
        forks.join()

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        """Text as it comes: of a variable, or all that program and model write."""
        reader = _Reader(self.execution, var_name)
        lane = self.execution.lane
        while True:
            with lane.changed:
                lane.changed.wait_for(reader.ready)
                piece = reader.take()
            if piece is None:
                return
            yield piece[0]

    async def text_async_iter(
        self, var_name: str | None = None, return_meta_data: bool = False
    ) -> AsyncIterator[Any]:
        """The same for asyncio; with meta data pairs of text and `get_meta_info`."""
        reader = _Reader(self.execution, var_name)
        lane, loop, woken = self.execution.lane, asyncio.get_running_loop(), asyncio.Event()

        def listen() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(woken.set)

        with lane.changed:
            lane.listeners.add(listen)
        try:
            while True:
                with lane.changed:
                    ready = reader.ready()
                    piece = reader.take() if ready else None
                if not ready:
                    await woken.wait()
                    woken.clear()
                elif piece is None:
                    return
                else:
                    yield piece if return_meta_data else piece[0]
        finally:
            with lane.changed:
                lane.listeners.discard(listen)


class _Reader:
    """Where one reader of a stream is. To be used under `lane.changed`."""

    def __init__(self, execution: Execution, name: str | None) -> None:
        self._execution, self._name = execution, name
        self._seen = 0

    def ready(self) -> bool:
        """There is more, or there will be no more."""
        text, _, ended = self._now()
        return len(text) > self._seen or ended

    def take(self) -> tuple[str, Any] | None:
        """What is new; None: nothing will be. Raises the program's error, KeyError."""
        text, meta, ended = self._now()
        if len(text) > self._seen:
            new, self._seen = text[self._seen :], len(text)
            return new, meta
        assert ended
        variable = self._execution.variables.get(self._name)
        if self._name is None or variable is None or not variable.complete:
            self._execution.lane.raise_error()
            if self._name is not None:
                raise KeyError(self._name)
        return None

    def _now(self) -> tuple[str, Any, bool]:
        """Text and meta data so far, and whether that is all."""
        execution = self._execution
        ended = execution.over() or execution.lane.error is not None
        if self._name is None:
            return execution.shown(), {}, ended
        variable = execution.variables.get(self._name)
        if variable is None:
            return "", {}, ended
        value = variable.value
        text = value if isinstance(value, str) else "".join(map(str, value))
        return text, variable.meta, ended or variable.complete
