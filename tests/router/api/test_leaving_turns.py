"""Long work in a thread leaves the event loop its turns."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from penstock_router.api import leaving_turns


def test_a_turn_behind_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(leaving_turns, "time", SimpleNamespace(sleep=slept.append))
    for count, turns in ((0, 0), (1, 0), (3, 0), (4, 1), (6, 1), (7, 2)):
        slept.clear()
        assert [*leaving_turns.leaving_turns(range(count), 3)] == [*range(count)]
        assert slept == [leaving_turns.TURN] * turns


async def test_few_entries_need_no_thread() -> None:
    for entries in (0, leaving_turns.FEW, leaving_turns.FEW + 1):
        thread = await leaving_turns.written(entries, threading.current_thread)
        assert (thread is threading.main_thread()) == (entries <= leaving_turns.FEW)
