"""Tasks of one state, one after the other, in the background.

A thread runs them as long as there are any. So a program goes on while its forks generate, each in
a lane of its own, and waits where it reads what was generated.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Task = Callable[[], None]


class Lane:
    """The first error is the last task's: nothing runs after it, and whoever adds a task or waits
    gets it."""

    def __init__(self, threaded: bool = True) -> None:
        """threaded: False runs every task where it is added."""
        self.threaded = threaded
        self.error: BaseException | None = None
        self.changed = threading.Condition()  # holds for all that tasks change
        self.listeners: set[Callable[[], None]] = set()  # called after each change; must not block
        self._tasks: deque[Task] = deque()
        self._busy = False

    @property
    def idle(self) -> bool:
        """Nothing runs or waits. Holds as long as `changed` is held."""
        return not self._busy

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change what others look at."""
        with self.changed:
            yield
            self.changed.notify_all()
            for listener in self.listeners:
                listener()

    def add(self, task: Task, instant: bool = False) -> None:
        """Run a task behind all others. instant: it takes no time, so it may run here and now where
        nothing is before it. Raises the error of an earlier task, and of one that runs here."""
        with self.changed:
            self.raise_error()
            here = not self._busy and (instant or not self.threaded)
            if not here:
                self._tasks.append(task)
                if self._busy:
                    return
            self._busy = True
        left = True
        if here:
            self._run(task)
            with self.changing():
                left = self._busy = bool(self._tasks)  # others may have added some meanwhile
        if left:
            threading.Thread(target=self._drain, name="penstock-lang", daemon=True).start()
        if here:
            self.raise_error()

    def wait(self) -> None:
        """Until all tasks have ended. Raises the error of one."""
        with self.changed:
            self.changed.wait_for(lambda: self.idle)
            self.raise_error()

    def raise_error(self) -> None:
        """If a task has failed."""
        if self.error is not None:
            raise self.error

    def fail(self, error: BaseException) -> None:
        """As if a task had."""
        with self.changing():
            self.error = self.error or error
            self._tasks.clear()

    def _drain(self) -> None:
        while True:
            with self.changing():
                if not self._tasks:
                    self._busy = False
                    return
                task = self._tasks.popleft()
            self._run(task)

    def _run(self, task: Task) -> None:
        try:
            task()
        except BaseException as error:  # it is raised where the program waits
            self.fail(error)
