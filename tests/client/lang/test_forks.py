"""Forks run at once, from one and the same beginning."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import penstock.lang as sgl

from .conftest import Told


def test_forks_generate_at_once(told: Told) -> None:
    told.gate = threading.Barrier(5)

    @sgl.function
    def program(s: Any) -> None:
        s += "a"
        forks = s.fork(5)
        for fork in forks:
            fork += sgl.gen("x")
        forks.join()

    assert program.run()["x"] == ["…"] * 5
    assert told.most_at_once == 5


def test_a_fork_has_what_was_added_before(told: Told) -> None:
    """Also where that is still being generated; often, as it is a race."""

    def slowly(prompt: Any) -> str:
        time.sleep(0.002)
        return f"<{len(prompt.text)}>"

    told.answer = slowly

    @sgl.function
    def program(s: Any) -> None:
        s += "begin" + sgl.gen("x")
        forks = s.fork(3)
        forks += lambda i: f"{i}" + sgl.gen("y")
        forks.join()

    for _ in range(20):
        state = program.run()
        assert state["y"] == ["<9>"] * 3 and state.text() == "begin<5>"


def test_gather_takes_new_variables_only(told: Told) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.gen("old")
        s["own"] = 1
        forks = s.fork(3)
        forks[1] += sgl.gen("one")
        forks += sgl.gen("all")
        forks += "not in the parent"
        forks.join()

    state = program.run()
    assert (state["old"], state["own"], state["one"], state["all"]) == ("…", 1, ["…"], ["…"] * 3)
    assert len(state.get_meta_info("all")) == 3 and state.text() == "…"


def test_copy_and_nested_forks(told: Told) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "a"
        with s.copy() as copy:
            copy += "b" + sgl.gen("x")
            inner = copy.fork(2)
            inner += sgl.gen("y")
            inner.join()
        s += "c"

    state = program.run()
    assert state.text() == "ac" and state["x"] == ["…"] and state["y"] == [["…", "…"]]


def test_what_is_added_to_forks(told: Told) -> None:
    @sgl.function
    def program(s: Any, value: Any) -> None:
        forks = s.fork(2)
        forks += value
        forks.join("concate_and_append")

    assert program.run("x").text() == "xx"
    assert program.run(["x", "y"]).text() == "xy"
    assert program.run(lambda i: str(i)).text() == "01"
    with pytest.raises(ValueError, match="one item for each of 2"):
        program.run(["x"])
    with pytest.raises(TypeError, match="Given: int"):
        program.run(5)


def test_wrong_arguments(told: Told) -> None:
    @sgl.function
    def program(s: Any, **how: Any) -> None:
        forks = s.fork(how.pop("size", 1))
        forks.join(**how)

    with pytest.raises(ValueError, match="`mode` must be one of"):
        program.run(mode="append")
    with pytest.raises(ValueError, match="`size` must be at least 1"):
        program.run(size=0)


def test_an_error_of_a_fork_that_nobody_reads(told: Told) -> None:
    told.answer = lambda prompt: 1 // (1 - len(prompt.text)) and "…"

    @sgl.function
    def program(s: Any) -> None:
        forks = s.fork(2)
        forks += ["", "a"]
        forks += sgl.gen("x")

    with pytest.raises(ZeroDivisionError):
        program.run()
