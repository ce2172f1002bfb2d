"""Many programs at once: order, threads, errors, laziness."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import penstock.lang as sgl
from penstock.lang import batch

from .conftest import Told


@sgl.function
def repeat(s: Any, word: str, again: str = "!") -> str:
    s += word + again + sgl.gen("x")
    return word


def test_order_and_forms_of_rows(told: Told) -> None:
    told.answer = lambda prompt: prompt.text.upper()
    states = repeat.run_batch([{"word": "a"}, ("b",), ("c", "?"), ["d", ""]], num_threads=3)
    assert [state["x"] for state in states] == ["A!", "B!", "C?", "D"]
    assert [state.ret_value for state in states] == ["a", "b", "c", "d"]
    bound = [repeat.bind(word="e"), repeat.bind(again="-").bind(word="f")]
    assert [state["x"] for state in sgl.run_batch(bound)] == ["E!", "F-"]
    assert repeat.run_batch([]) == []


def test_as_many_threads_as_asked_for(told: Told) -> None:
    told.gate = threading.Barrier(4)
    repeat.run_batch([("a",)] * 12, num_threads=4)
    assert told.most_at_once == 4
    assert batch.thread_count("auto", 10) == 10 and batch.thread_count("auto", 10_000) >= 96


def test_a_generator_runs_not_far_ahead(told: Told) -> None:
    states = repeat.run_batch([("a",)] * 1000, generator_style=True, num_threads=2)
    assert next(states)["x"] == "…"
    most = 1 + batch.AHEAD
    while len(told.prompts) < most:
        time.sleep(0.01)
    time.sleep(0.1)  # in which all others would have run
    assert len(told.prompts) == most
    states.close()


def test_a_generator_yields_all_in_order(told: Told) -> None:
    told.answer = lambda prompt: prompt.text
    rows = [{"word": str(i)} for i in range(700)]
    states = repeat.run_batch(rows, generator_style=True, num_threads=8)
    assert [state["x"] for state in states] == [f"{i}!" for i in range(700)]


def refuse_b(prompt: Any) -> str:
    if prompt.text.startswith("b"):
        raise sgl.BackendError("no b", 422)
    return "…"


def test_the_first_error_ends_a_batch(told: Told) -> None:
    told.answer = refuse_b
    with pytest.raises(sgl.BackendError, match="no b"):
        repeat.run_batch([("a",), ("b",)] + [("a",)] * 500, num_threads=1)
    assert len(told.prompts) == 2


def test_errors_stay_with_their_states(told: Told) -> None:
    told.answer = refuse_b
    good, bad = repeat.run_batch([("a",), ("b",)], raise_errors=False)
    assert good["x"] == "…" and good.error() is None
    assert isinstance(bad.error(), sgl.BackendError)
    for read in (lambda: bad["x"], bad.text, bad.sync, lambda: bad.get_meta_info("x")):
        with pytest.raises(sgl.BackendError, match="no b"):
            read()


def test_the_functions_own_arguments_come_first(told: Told) -> None:
    """`n` is about sampling, unless the function has one."""

    @sgl.function
    def forked(s: Any, n: int = 3) -> int:
        s += sgl.gen("x")
        return n

    @sgl.function
    def plain(s: Any) -> None:
        s += sgl.gen("x")

    assert forked.run(n=5).ret_value == 5 and told.samplings[-1].n == 1
    assert plain.run(n=2, temperature=0.5) and told.samplings[-1].n == 2
    assert told.samplings[-1].temperature == 0.5


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: repeat.run(), "missing a required argument: 'word'"),
        (lambda: repeat.run("a", wrong=1), "unexpected keyword argument 'wrong'"),
        (lambda: repeat.run_batch([("a",)], wrong=1), "no argument `wrong`"),
        (lambda: repeat.run_batch({"word": "a"}), "must be a list of dicts"),
        (lambda: repeat.run_batch(["a"]), r"`batch_kwargs\[0\]` must be a dict"),
        (lambda: sgl.run_batch([lambda s: None]), r"`programs\[0\]` must be a program"),
        (lambda: sgl.function(lambda: None), "must take the state"),
    ],
)
def test_wrong_calls(told: Told, call: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        call()
    with pytest.raises(ValueError, match="`num_threads`"):
        repeat.run_batch([("a",)], num_threads=0)
