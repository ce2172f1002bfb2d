"""Expressions that end a text are looked for while it is streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import penstock.lang as sgl
from penstock.lang.backend import Generation
from penstock.lang.backends.stop_regex import MOST_HELD, StopRegex


def cut(pattern: str, text: str) -> tuple[list[str], Any]:
    answers = (Generation(text[:end], {"finish_reason": None}) for end in range(len(text) + 1))
    shown = list(StopRegex([pattern]).cut(answers))
    return [str(one.text) for one in shown], shown[-1].meta


def test_nothing_of_a_match_is_shown() -> None:
    texts, meta = cut(r"END\d\d", "some text END12 more")
    assert texts[-1] == "some text " and meta["finish_reason"]["matched"] == r"END\d\d"
    assert all("some text ".startswith(text) for text in texts)


def test_without_a_match_all_is_shown() -> None:
    texts, meta = cut("x+", "abc")
    assert texts[-1] == "abc" and meta == {"finish_reason": None}


def test_the_generation_ends_with_the_match() -> None:
    ended = []

    def answers() -> Iterator[Generation]:
        try:
            for count in range(1000):
                yield Generation("a" * count, {})
        finally:
            ended.append(count)

    *_, last = StopRegex(["a{5}"]).cut(answers())
    assert last.text == "" and ended == [5]


def test_an_expression_without_a_longest_match() -> None:
    assert StopRegex([r"a+b"])._held == MOST_HELD - 1
    with pytest.raises(ValueError, match="`stop_regex` .* is no expression"):
        StopRegex(["("])


def test_on_a_server(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def program(s: Any, **how: Any) -> None:
        s += "What is the capital of France?" + sgl.gen("answer", max_tokens=30, **how)

    for stream in (False, True):
        state = program.run(stop_regex=r" P[a-z]+s", temperature=0, stream=stream)
        assert "".join(state.text_iter("answer")) == state["answer"] == " The capital of France is"
        assert state.get_meta_info("answer")["finish_reason"]["matched"] == r" P[a-z]+s"
    with pytest.raises(sgl.Unsupported, match="`stop_regex` needs `n` to be 1"):
        program.run(stop_regex="a", n=2)
