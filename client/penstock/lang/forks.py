"""States that came of one by `fork`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from penstock.lang.expressions import Join

if TYPE_CHECKING:
    from penstock.lang.state import ProgramState

MODES = ("gather_variable", "concate_and_append")


class ForkedStates:
    """`forks[i]` is a state; `forks += …` adds to each: text, an expression, a list with one for
    each, or a function of the index."""

    def __init__(self, parent: ProgramState, states: list[ProgramState]) -> None:
        self.parent = parent
        self.states = states
        self._start = parent.execution.prompt
        self._known = set(parent.execution.variables)

    def __len__(self) -> int:
        return len(self.states)

    def __iter__(self) -> Iterator[ProgramState]:
        return iter(self.states)

    def __getitem__(self, index: int) -> ProgramState:
        return self.states[index]

    def __setitem__(self, index: int, state: ProgramState) -> None:
        """What `forks[i] += …` does in the end. Raises ValueError for another state."""
        if state is not self.states[index]:
            raise ValueError("a fork cannot be replaced by another state")

    def __iadd__(self, other: Any) -> ForkedStates:
        for state, value in zip(self.states, self._for_each(other), strict=True):
            state += value
        return self

    def _for_each(self, other: Any) -> Sequence[Any]:
        if callable(other):
            function: Callable[[int], Any] = other
            return [function(index) for index in range(len(self.states))]
        if not isinstance(other, list | tuple):
            return [other] * len(self.states)
        if len(other) != len(self.states):
            raise ValueError(
                f"a list that is added to forks must have one item for each of {len(self.states)}. "
                f"Given: {len(other)}"
            )
        return other

    def join(self, mode: str = "gather_variable") -> None:
        """Wait for all, and take over what they have: with `gather_variable` each new variable as a
        list, with `concate_and_append` their texts. Raises the first error."""
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}. Given: {mode!r}")
        for state in self.states:
            state.execution.finish()
        if mode == "gather_variable":
            self._gather()
        else:
            added = tuple(state.execution.prompt.since(self._start) for state in self.states)
            self.parent.execution.add(Join(added))

    def _gather(self) -> None:
        found = [state.execution.variables for state in self.states]
        names = dict.fromkeys(name for own in found for name in own if name not in self._known)
        for name in names:
            if name is not None:
                present = [own[name] for own in found if name in own]
                values, metas = [one.value for one in present], [one.meta for one in present]
                self.parent.execution.set(name, values, metas)
