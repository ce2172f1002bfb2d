"""`penstock chat` and `penstock run` against a server: what a person types and sees."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import closing

import pytest

from penstock import LLM
from penstock.lang.backend import BackendError
from penstock.terminal import chat
from penstock.terminal.conversation import Conversation


def typed(llm: LLM, lines: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, with these lines on its standard input."""
    command = [sys.executable, "-m", "penstock.command", "chat", "--url", llm.url, *options]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60)


def test_a_conversation_goes_on(llm: LLM) -> None:
    said = typed(
        llm,
        "What is the capital of Italy?\n/nothing\n/help\n\n"
        '"""\nWhat is the capital\nof Spain?\n"""\n/reset\n/exit\nnever read\n',
        "--temperature", "0",
    )  # fmt: skip
    assert said.returncode == 0 and said.stderr == ""
    for text in ("demo_model; /help", "Rome", "there is no command /nothing", "/system TEXT"):
        assert text in said.stdout
    assert "\x1b" not in said.stdout  # no terminal, no colours


def test_run_answers_once(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--url", llm.url, "--temperature", "0", "What is the capital of France?"]
    assert chat.run(asked) == 0
    assert capsys.readouterr().out == "The capital of France is Paris.\n"


def test_run_reads_standard_input(
    llm: LLM, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is the capital of Italy?"))
    assert chat.run(["--url", llm.url, "--temperature", "0", "-"]) == 0
    assert "Rome" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--url", "http://127.0.0.1:1"], "cannot be reached"),
        (["--url", "nowhere"], "must be a URL"),
        (["--temperature", "-1"], "`temperature`"),
        (["--model", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    llm: LLM, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat.run(["--url", llm.url, *options, "hi"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("penstock: ") and sentence in last


def test_messages_are_kept_of_whole_answers_alone(llm: LLM) -> None:
    conversation = Conversation(llm.url, temperature=0.0, max_tokens=20)
    with closing(conversation):
        stopped = conversation.say("What is the capital of France?")
        next(stopped)
        stopped.close()
        assert conversation.messages == []
        said = list(conversation.say("What is the capital of France?"))
        answer = "".join(piece.text for piece in said)
        assert [one["content"] for one in conversation.messages] == [
            "What is the capital of France?",
            answer,
        ]
        wrong = Conversation(llm.url, top_p=7)
        with pytest.raises(BackendError, match="top_p"):
            list(wrong.say("hi"))
        assert wrong.messages == []
        conversation.reset()
        assert conversation.messages == []
