"""Progress in a log and on a terminal: when a line is due, and how long is left."""

from __future__ import annotations

import json
import os
import pty
from typing import Any

import pytest

from penstock_launcher.progress import Lines, Records
from penstock_proto.progress import Bars, Progress, Wait, duration


class World:
    """A view whose clock stands still, and what it said."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.view = Lines(self.said.append, clock=lambda: self.now)

    def show(self, now: float, done: float, total: float = 1000, unit: str = "B") -> None:
        self.now = now
        self.view.show(Progress("shard 0", "weights", done, total, unit))


def test_time_left_is_that_of_what_came_since() -> None:
    world = World()
    world.show(0, 200)  # was there before
    world.show(10, 400)
    world.show(20, 600)
    world.show(40, 1000)
    assert world.said == [
        "shard 0: weights: 20 % (200 B of 1 KB)",
        "shard 0: weights: 40 % (400 B of 1 KB), 30 s left",
        "shard 0: weights: 60 % (600 B of 1 KB), 20 s left",
        "shard 0: weights: 100 % (1 KB of 1 KB) in 40 s",
    ]


def test_long_work_says_a_few_lines() -> None:
    world = World()
    for second in range(1201):
        world.show(second, second, total=1200, unit="graphs")
    assert 5 <= len(world.said) <= 12
    assert world.said[1] == "shard 0: weights: 0 % (5 of 1200 graphs), 19 min 55 s left"
    assert world.said[-1].endswith("100 % (1200 of 1200 graphs) in 20 min 0 s")


def test_work_that_stands_still_or_has_no_end() -> None:
    world = World()
    world.show(0, 10)
    world.show(60, 10)
    world.show(100, 70, total=0)
    assert world.said[1:] == ["shard 0: weights: 1 % (10 B of 1 KB)", "shard 0: weights: 70 B"]


def test_after_the_end_nothing_is_said() -> None:
    world = World()
    for second in (0, 100, 200):
        world.show(second, 1000)
    assert world.said == ["shard 0: weights: 100 % (1 KB of 1 KB)"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (None, "waiting for router to be ready (10 s)"),
        (70, "waiting for router to be ready (10 s; some 1 min 0 s left, as the last start went)"),
        (7, "waiting for router to be ready (10 s; the last start took 7 s)"),
    ],
)
def test_waiting(expected: float | None, text: str) -> None:
    assert str(Wait("router", 10, expected)) == text


def test_waiting_in_a_log_has_a_line_where_one_is_due() -> None:
    world = World()
    world.view.wait(Wait("router", 1, None), due=False)
    world.view.wait(Wait("router", 10, None), due=True)
    world.view.waited()
    assert world.said == ["waiting for router to be ready (10 s)"]


def test_waiting_without_a_last_start(capsys: pytest.CaptureFixture[str]) -> None:
    view = Bars()
    for elapsed in (1.0, 2.0):
        view.wait(Wait("router", elapsed, None))
    view.waited()
    view.waited()
    assert "waiting for router: 2 s" in capsys.readouterr().err


def test_waiting_on_a_terminal_is_a_bar_that_goes(capsys: pytest.CaptureFixture[str]) -> None:
    view = Bars()
    for elapsed in (1.0, 2.0, 99.0):
        view.wait(Wait("router", elapsed, 10.0))
    view.waited()
    shown = capsys.readouterr()
    assert shown.out == "" and "20%|" in shown.err and "some 8 s left" in shown.err
    assert "100%|" in shown.err and "waiting for router: 1 min 39 s" in shown.err
    assert shown.err.rsplit("\r", 1)[-1].strip() == "", "nothing is left of it"


def test_records_are_read_as_they_were() -> None:
    told: list[dict[str, Any]] = []
    view = Records(lambda **fields: told.append(json.loads(json.dumps(fields))))
    progress, wait = Progress("shard 0", "weights", 5, 10, "B"), Wait("router", 1.5, None)
    view.show(progress)
    view.wait(wait, due=False)
    view.waited()
    assert Progress.parse(told[0]["process"], told[0]["progress"]) == progress
    assert Wait.parse(told[1]["wait"]) == wait
    assert Wait.parse(told[2]["wait"]) is None


def test_a_terminal_without_a_size_has_bars_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers get one: tqdm alone would draw nothing."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as screen:
        monkeypatch.setattr("sys.stderr", screen)
        Bars().show(Progress("shard 0", "weights", 10, 10, "B"))
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert "shard 0: weights: 100%|" in shown
