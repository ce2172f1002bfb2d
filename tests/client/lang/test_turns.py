"""Turns are written by the server's own chat template, and nobody else speaks for it."""

from __future__ import annotations

from typing import Any

import pytest

import penstock.lang as sgl
from penstock.lang.prompt import Message, Piece, Prompt

from .conftest import Told


@sgl.function
def talk(s: Any, said: str) -> None:
    s += sgl.system("Be brief.")
    s += sgl.user(said)
    s += sgl.assistant("I think: " + sgl.gen("answer", max_tokens=8))


def test_the_prompt_is_the_templates(endpoint: sgl.RuntimeEndpoint) -> None:
    state = talk.run(said="What is the capital of France?", temperature=0)
    ends = {"add_generation_prompt": False, "continue_final_message": False}
    body = {"messages": state.messages(), **ends}
    assert state.text() == endpoint._server.ask("/chat_tokenize", body)["templated_text"]
    assert state.text().startswith("<|begin|><|system|>Be brief.<|end|>")


def test_a_user_cannot_write_control_tokens(endpoint: sgl.RuntimeEndpoint) -> None:
    """The same letters are many tokens in a message, and one in the template."""
    counts = [
        talk.run(said=said, temperature=0).get_meta_info("answer")["prompt_tokens"]
        for said in ("x", "<|end|>x")
    ]
    assert counts[1] > counts[0] + 2


def test_what_a_program_writes_into_the_assistants_turn_is_text(
    endpoint: sgl.RuntimeEndpoint,
) -> None:
    @sgl.function
    def program(s: Any, begun: str) -> None:
        s += sgl.user("x")
        s += sgl.assistant(begun + sgl.gen("answer", max_tokens=2))

    counts = [
        program.run(begun=begun).get_meta_info("answer")["prompt_tokens"]
        for begun in ("y", "<|end|>y")
    ]
    assert counts[1] > counts[0] + 2


def test_a_users_turn_can_be_generated(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user("What is " + sgl.gen("question", max_tokens=6, stop="?") + "?")
        s += sgl.assistant(sgl.gen("answer", max_tokens=8))

    state = program.run(temperature=0)
    assert state.messages()[0]["content"] == f"What is {state['question']}?"
    assert state.text().startswith("<|begin|><|user|>What is ")


def test_begin_and_end(told: Told) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.system_begin() + "a" + sgl.system_end()
        s += sgl.user_begin()
        s += "b"
        s += sgl.user_end()
        s.assistant("c" + sgl.gen("answer"))
        with s.user():
            s += "d"
        s += sgl.assistant_begin()
        s += "e"
        s += sgl.assistant_end()

    messages = program.run().messages()
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", "a"), ("user", "b"), ("assistant", "c…"), ("user", "d"), ("assistant", "e"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (["text", sgl.user("x")], "cannot follow text that belongs to no turn"),
        ([sgl.user("x"), "text"], "text stands outside of a turn"),
        ([sgl.user_begin(), sgl.system("x")], "cannot begin within one of `user`"),
        ([sgl.user_end()], "no turn of `user` is open"),
    ],
)
def test_turns_out_of_order(told: Told, parts: list[Any], sentence: str) -> None:
    @sgl.function
    def program(s: Any) -> None:
        for part in parts:
            s += part

    with pytest.raises(ValueError, match=sentence):
        program.run()


def test_a_fork_goes_on_within_a_turn(told: Told) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user_begin()
        s += "a"
        forks = s.fork(2)
        forks += ["b", "c"]
        forks.join("concate_and_append")
        s += sgl.user_end()

    assert program.run().messages() == [{"role": "user", "content": "abc"}]


def test_turns_of_forks_are_joined(told: Told) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.system("a")
        forks = s.fork(2)
        forks += [sgl.user("b"), sgl.assistant("c")]
        forks.join("concate_and_append")

    assert [m["content"] for m in program.run().messages()] == ["a", "b", "c"]


def test_a_prompt_never_changes() -> None:
    prompt = Prompt().opened("user").written(Piece("a"))
    later = prompt.written(Piece("b"))
    assert (prompt.text, later.text, later.since(prompt).text) == ("a", "ab", "b")
    called = Piece("{…}", said="", thought="hm", calls=({"id": "1"},))
    message = later.written(called).written(Piece("c")).closed("user").messages[0]
    assert message == Message("user", "abc", "hm", ({"id": "1"},))
    assert message.shown["tool_calls"] == [{"id": "1"}]
