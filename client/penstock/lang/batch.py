"""Many programs at once, their results in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

AHEAD = 200  # programs that may begin before a result is read, beside those of each thread


def thread_count(wanted: int | str, tasks: int) -> int:
    """Of a batch. Raises ValueError."""
    if wanted == "auto":
        wanted = max(96, (os.cpu_count() or 1) * 16)
    if not isinstance(wanted, int) or wanted < 1:
        raise ValueError(f"`num_threads` must be `auto` or at least 1. Given: {wanted!r}")
    return max(1, min(wanted, tasks))


def run_all(
    tasks: Sequence[Callable[[], T]], *, threads: int, progress: bool, ahead: int | None
) -> Iterator[T]:
    """Results in order, as they come. The first error of any task is raised at once, and no other
    task begins then, nor when the iterator is closed. ahead: None runs all as fast as it goes."""
    bar = _bar(len(tasks)) if progress else None
    pool = _Pool(tasks, ahead=len(tasks) if ahead is None else max(ahead, threads), bar=bar)
    for _ in range(threads):
        threading.Thread(target=pool.work, name="penstock-batch", daemon=True).start()
    return pool.results()


def _bar(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="program")


class _Pool(Generic[T]):
    """Threads take tasks in order; one reader takes results in order."""

    def __init__(self, tasks: Sequence[Callable[[], T]], *, ahead: int, bar: Any) -> None:
        self._tasks = tasks
        self._ahead = ahead
        self._bar = bar
        self._changed = threading.Condition()
        self._results: dict[int, T] = {}
        self._next = 0  # task to begin
        self._read = 0  # results that were taken
        self._error: BaseException | None = None
        self._closed = False

    def work(self) -> None:
        """What each thread does."""
        while (index := self._take()) is not None:
            try:
                result = self._tasks[index]()
            except BaseException as error:
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()
                return
            with self._changed:
                self._results[index] = result
                if self._bar is not None:
                    self._bar.update(1)
                self._changed.notify_all()

    def _take(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._over() or self._next < self._read + self._ahead)
            if self._over():
                return None
            self._next += 1
            return self._next - 1

    def _over(self) -> bool:
        return self._closed or self._error is not None or self._next == len(self._tasks)

    def results(self) -> Iterator[T]:
        """In order. Closing it ends the batch."""
        try:
            for index in range(len(self._tasks)):
                yield self._result(index)
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            if self._bar is not None:
                self._bar.close()

    def _result(self, index: int) -> T:
        with self._changed:
            self._changed.wait_for(lambda: index in self._results or self._error is not None)
            if self._error is not None:
                raise self._error
            self._read += 1
            self._changed.notify_all()
            return self._results.pop(index)
