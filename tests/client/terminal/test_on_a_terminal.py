"""`penstock chat` and its neighbours on a terminal, and in pipes that break."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import LLM
from penstock.terminal.conversation import Conversation, Piece
from penstock.terminal.screen import DIM, Screen
from support.terminals import on_terminal

PENSTOCK = (sys.executable, "-m", "penstock.command")
PROMPT = r">[^ \n]* $"


def test_a_conversation(llm: LLM) -> None:
    command = (*PENSTOCK, "chat", "--url", llm.url, "--temperature", "0")
    with on_terminal(*command) as terminal:
        terminal.wait(r"demo_model; /help lists commands\x1b\[0m")
        for typed, shown in (
            ("What is the capital of France?\r", r"is Paris\."),
            ('"""\rWhat is the capital\rof Italy?\r"""\r', r"Rome"),
            ("What is the capital \\\rof Spain?\r", r"Madrid"),
            ("/system Be brief.\r", r"told so from now on"),
            ("/reset\r", r"a new conversation"),
            ("not sent", r"not sent"),
        ):
            terminal.wait(PROMPT)
            terminal.type(typed)
            terminal.wait(shown)
        terminal.interrupt(PROMPT)
        terminal.type("\x04")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.shown


def test_an_answer_is_stopped_and_the_conversation_goes_on(llm: LLM) -> None:
    long = ("--max-tokens", "1000", "--temperature", "5", "--seed", "1")
    with on_terminal(*PENSTOCK, "chat", "--url", llm.url, *long) as terminal:
        terminal.wait(PROMPT)
        terminal.type("Tell me a long story\r")
        terminal.wait(r"story\r\n.+")
        terminal.interrupt(r"\(stopped\)")
        terminal.wait(PROMPT)
        terminal.type("/exit\r")
        assert terminal.end() == 0


def test_no_colour(llm: LLM) -> None:
    with on_terminal(*PENSTOCK, "chat", "--url", llm.url, NO_COLOR="1") as terminal:
        terminal.wait("lists commands")
        terminal.wait(PROMPT)
        terminal.type("\x04")
        assert terminal.end() == 0
        assert "\x1b[1m" not in terminal.shown and "\x1b[2m" not in terminal.shown


def test_run_needs_a_prompt() -> None:
    with on_terminal(*PENSTOCK, "run") as terminal:
        assert terminal.end() == 2 and "give a PROMPT" in terminal.shown
    empty = subprocess.run([*PENSTOCK, "run"], stdin=subprocess.DEVNULL, capture_output=True)
    assert empty.returncode == 2 and b"the prompt is empty" in empty.stderr


def test_what_is_piped_in_is_the_prompt(llm: LLM) -> None:
    command = [*PENSTOCK, "run", "--url", llm.url, "--temperature", "0"]
    asked = "What is the capital of Italy?\n"
    said = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stderr) == (0, "") and "Rome" in said.stdout


@pytest.mark.parametrize(
    "words",
    [["run", "hi"], ["doctor", "--offline"], ["--help"], ["migrate"], ["bench", "serve"]],
    ids=" ".join,
)
def test_a_pipe_that_breaks(llm: LLM, words: list[str]) -> None:
    """`penstock … | true`."""
    extra = {"run": ["--url", llm.url], "migrate": ["vllm", "serve", "org/name"]}
    extra["bench"] = ["--url", llm.url, "--num-prompts", "1", "--output-len", "2", "--disable-tqdm"]
    command = [*PENSTOCK, *words, *extra.get(words[0], [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.wait() in (141, -13)


def test_a_disk_that_is_full(llm: LLM) -> None:
    with open("/dev/full", "w") as full:
        said = subprocess.run(
            [*PENSTOCK, "run", "--url", llm.url, "hi"], stdout=full, stderr=subprocess.PIPE
        )
    assert said.returncode == 1 and said.stderr.startswith(b"penstock: ")
    assert b"Traceback" not in said.stderr


def test_a_model_cannot_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    Screen().write("a\x1b[2J\r\x9b\tb\n", DIM)
    assert capsys.readouterr().out == f"\x1b[0m{DIM}a\\x1b[2J\\r\\x9b\tb\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    Screen().write("a\x1b[2J", DIM)
    assert capsys.readouterr().out == "a\x1b[2J"


def test_thoughts_are_shown_and_not_sent_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def events(_self: object, _path: str, body: dict[str, Any]) -> Iterator[Any]:
        for delta in ({"reasoning": "hm", "reasoning_content": "hm"}, {"content": "yes"}):
            yield {"choices": [{"delta": delta}]}
        yield {"choices": [{"delta": {}, "finish_reason": "length"}]}

    monkeypatch.setattr("penstock.lang.backends.http.Connections.events", events)
    conversation = Conversation("http://127.0.0.1:1")
    assert list(conversation.say("a")) == [Piece("hm", thought=True), Piece("yes")]
    assert conversation.messages[-1] == {"role": "assistant", "content": "yes"}
    assert conversation.cut
