"""What `penstock.lang` does by other people's packages."""

from __future__ import annotations

from typing import Any

import penstock.lang as sgl

WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
    },
}


@sgl.function
def answered(s: Any, question: str, **how: Any) -> None:
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("answer", max_tokens=20, **how))


@sgl.function
def called(s: Any, **how: Any) -> None:
    s += sgl.user("The weather?")
    s += sgl.assistant(sgl.gen("answer", max_tokens=80, **how))


def chats() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.system("Be brief.")
        s += sgl.user("What is the capital of France?")
        s += sgl.assistant(sgl.gen("first", max_tokens=20))
        s += sgl.user("What is the capital of Japan?")
        s += sgl.assistant(sgl.gen("second", max_tokens=20))

    state = program.run(temperature=0)
    assert "Paris" in state["first"] and "Tokyo" in state["second"], state.messages()
    assert state.get_meta_info("second")["completion_tokens"] > 0


def streams() -> None:
    state = answered.run(question="What is the capital of France?", temperature=0, stream=True)
    pieces = list(state.text_iter("answer"))
    assert len(pieces) > 1 and "Paris" in "".join(pieces), pieces


def refuses() -> None:
    """What the API has no words for."""
    for how in ({"stop_regex": "a"},):
        try:
            answered.run(question="x", **how)
        except sgl.Unsupported as error:
            assert next(iter(how)) in str(error)
        else:
            raise AssertionError(how)
    try:
        chosen.run()
    except sgl.Unsupported as error:
        assert "cannot score choices" in str(error), error
    else:
        raise AssertionError("choices were scored")


@sgl.function
def chosen(s: Any) -> None:
    s += sgl.user("x")
    s += sgl.assistant(sgl.select("x", ["a", "b"]))
