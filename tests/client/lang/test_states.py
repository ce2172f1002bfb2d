"""Variables, scopes, streams and traces of one state."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import penstock.lang as sgl
from penstock.lang.tracing import Argument

from .conftest import Told


@sgl.function
def two(s: Any) -> str:
    s += "a" + sgl.gen("x") + "b"
    with s.var_scope("scope"):
        s += "c" + sgl.gen("y")
    s["own"] = s["x"] * 2
    return "done"


def test_variables(told: Told) -> None:
    state = two.run()
    assert state.text() == "a…bc…" and state.ret_value == "done"
    assert (state["x"], state["y"], state["scope"], state["own"]) == ("…", "…", "c…", "……")
    assert "x" in state and "z" not in state and state.get_meta_info("y") == {"about": 4}
    with pytest.raises(KeyError):
        state["z"]


def test_reading_what_never_comes_does_not_wait(told: Told) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.gen("x")
        s["y"]

    with pytest.raises(KeyError, match="y"):
        program.run()


def test_overrides(told: Told) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.gen("x", max_tokens=5, stop=["a"])
        s += sgl.gen("y", dtype=int, stop="z")

    program.run(temperature=0.3, stop="b", max_new_tokens=9)
    first, second = told.samplings
    assert (first.max_new_tokens, first.stop, first.temperature) == (5, ("a",), 0.3)
    assert second.stop == ("z", " ", "\n") and second.max_new_tokens == 9


@pytest.mark.parametrize("threaded", [True, False])
def test_without_threads(told: Told, threaded: bool) -> None:
    names: list[str] = []
    told.answer = lambda prompt: names.append(threading.current_thread().name) or "…"
    two.run(use_thread=threaded)
    assert (set(names) == {threading.current_thread().name}) is not threaded


def test_a_stream_grows(told: Told) -> None:
    told.answer = lambda prompt: "abc"
    state = two.run(stream=True)
    assert list(state.text_iter("x")) and "".join(state.text_iter("x")) == "abc"
    assert "".join(state.text_iter()) == "aabcbcabc"
    assert state["y"] == "abc" and state.ret_value == "done"


async def test_asynchronous_streams(told: Told) -> None:
    told.answer = lambda prompt: "abc"

    async def read() -> str:
        state = two.run(stream=True)
        pieces = [piece async for piece in state.text_async_iter("y")]
        pairs = [pair async for pair in state.text_async_iter("x", return_meta_data=True)]
        assert "".join(text for text, _ in pairs) == "abc"
        assert not state.execution.lane.listeners
        return "".join(pieces)

    assert await asyncio.gather(*(read() for _ in range(40))) == ["abc"] * 40


def test_a_stream_raises_where_it_is_read(told: Told) -> None:
    def fail(prompt: Any) -> str:
        raise sgl.BackendError("gone")

    told.answer = fail
    state = two.run(stream=True)
    for read in (lambda: list(state.text_iter("x")), lambda: list(state.text_iter())):
        with pytest.raises(sgl.BackendError, match="gone"):
            read()

    async def asynchronously() -> None:
        async for _ in state.text_async_iter("x"):
            pass

    with pytest.raises(sgl.BackendError, match="gone"):
        asyncio.run(asynchronously())


def test_an_error_is_raised_at_the_next_addition(told: Told) -> None:
    """Where SGLang's frontend waits forever."""

    def fail(prompt: Any) -> str:
        raise sgl.BackendError("gone")

    told.answer = fail
    reached = []

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.gen("x")
        s.error()
        reached.append(1)
        s += "more" + sgl.gen("y")
        reached.append(2)

    with pytest.raises(sgl.BackendError, match="gone"):
        program.run()
    assert reached == [1]


def test_nothing_runs_behind_an_error(told: Told) -> None:
    added = threading.Event()

    def fail(prompt: Any) -> str:
        assert added.wait(20)
        raise sgl.BackendError("gone")

    told.answer = fail

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.gen("x")
        s += sgl.gen("y")
        added.set()

    with pytest.raises(sgl.BackendError, match="gone"):
        program.run()
    assert len(told.prompts) == 1


def test_an_error_of_the_functions_own(told: Told) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.gen("x")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        program.run()
    state = program.run(stream=True)
    with pytest.raises(LookupError, match="mine"):
        list(state.text_iter())


def test_traces(told: Told) -> None:
    @sgl.function
    def program(s: Any, name: str, kind: str = "x") -> None:
        s += "Always " + "the same. "
        s += "Then " + name
        s += sgl.gen("x")
        if kind == "y":
            s += "never"

    trace = program.trace()
    assert trace.prefix.text == "Always the same. Then " and not trace.complete
    assert any(isinstance(part, Argument) for part in trace.parts)
    whole = program.bind(name="N").trace(kind="x")
    assert whole.complete and whole.prefix.text == "Always the same. Then N"
    program.cache()
    assert told.prompts[-1] == trace.prefix


def test_a_trace_ends_where_an_argument_is_looked_at(told: Told) -> None:
    @sgl.function
    def program(s: Any, names: list[str]) -> None:
        s += sgl.system("Be brief.")
        s += sgl.user(f"Names: {names}")

    trace = program.trace()
    assert [message.content for message in trace.prefix.messages] == ["Be brief."]


def test_a_program_within_a_program(told: Told) -> None:
    @sgl.function
    def part(s: Any, word: str) -> str:
        s += word + sgl.gen("x")
        return "returned"

    @sgl.function
    def whole(s: Any) -> str:
        s += "a "
        found: str = part.bind(word="b ")(s)
        return found

    state = whole()
    assert state.text() == "a b …" and state["x"] == "…" and state.ret_value == "returned"


def test_a_stream_that_is_read_by_its_own_program(told: Told) -> None:
    @sgl.function
    def program(s: Any) -> list[str]:
        s += "a" + sgl.gen("x")
        return [*s.text_iter(), *s.text_iter("x")]

    assert "".join(program.run().ret_value) == "a……"


def test_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.lang.backend._Default.backend", None)
    with pytest.raises(RuntimeError, match="no backend"):
        two.run()
    with pytest.raises(TypeError, match="must be a backend"):
        sgl.set_default_backend("http://localhost")  # type: ignore[arg-type]
