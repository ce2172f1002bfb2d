"""Options in YAML: the same rules as on the command line, which wins."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from penstock_proto.config_file import Parser


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "options.yaml"


def parser() -> Parser:
    made = Parser(prog="command")
    made.add_argument("prompt", nargs="?")
    made.add_argument("-p", "--port", type=int, default=1)
    made.add_argument("--key", required=True)
    made.add_argument("--header", action="append", default=[])
    made.add_argument("--rate", type=float, nargs="+", default=[])
    made.add_argument("--points", metavar="P,…")
    made.add_argument("--quick", "--fast", action="store_true")
    made.add_argument("--bar", action=argparse.BooleanOptionalAction, default=True)
    one = made.add_mutually_exclusive_group(required=True)
    one.add_argument("--url")
    one.add_argument("--model")
    return made


def read(path: Path, text: str, *argv: str) -> dict[str, object]:
    path.write_text(text)
    return vars(parser().parse_args(["--config", str(path), *argv]))


NEEDED = "key: 0123\nurl: http://a\n"


def test_values_are_the_text_of_the_file(path: Path) -> None:
    given = read(
        path,
        NEEDED + "port: 8_0\nheader: [a, b]\nrate: [1, 2.5]\npoints: [50, 99]\nquick: yes\n"
        "bar: false\n",
        "hello",
    )
    assert given == {
        "config": str(path), "prompt": "hello", "port": 80, "key": "0123", "url": "http://a",
        "header": ["a", "b"], "rate": [1.0, 2.5], "points": "50,99", "quick": True, "bar": False,
        "model": None,
    }  # fmt: skip


@pytest.mark.parametrize("port", [["--port", "3"], ["--port=3"], ["-p3"], ["-p", "3"]])
def test_the_command_line_wins(path: Path, port: list[str]) -> None:
    text = NEEDED + "port: 2\nheader: [a, b]\nrate: 1\nbar: false\n"
    given = read(path, text, *port, "--header", "c", "--rate", "7", "--bar")
    assert (given["port"], given["header"], given["rate"], given["bar"]) == (3, ["c"], [7.0], True)
    assert read(path, "", "--key", "a", "--url", "b")["port"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port: http", "line 1: port: argument -p/--port: invalid int value: 'http'"),
        ("port:", "line 1: port must be text"),
        ("port: {a: 1}", "line 1: port must be text"),
        ("port: [1, 2]", "line 1: port takes one value, not a list"),
        ("port: 1\nport: 2", "line 2: port: port (line 1) and port say the same"),
        ("quick: true\n\nfast: true", "line 3: fast: quick (line 1) and fast say the same"),
        ("quick: 3", "line 1: quick must be true or false, not '3'"),
        ("quick: 'true'", "line 1: quick must be true or false, not 'true'"),
        ("url: a\nmodel: b", "not allowed with argument"),
        ("prompt: a", "line 1: prompt is not an option of command"),
        ("help: true", "line 1: help is not an option"),
        ("config: a", "line 1: config is not an option"),
        ("<<: {port: 1}", "line 1: '<<' is not the name of an option"),
        ("[a, b]: 1", "line 1: 'a list' is not the name of an option"),
        ("rate: [--bar]", "line 1: rate: "),
        ("port: !!python/name:os.system 1", "line 1: port must be text"),
        ("port: !!int [1]", "line 1: port must be text"),
        ("- a", "must hold options"),
        ("a: [", "is not YAML"),
        ("a: &x [*x]", "line 1: a is not an option"),
        ("port: &x [*x]", "line 1: port must be text"),
        ("key: " + "[" * 9000, "is not YAML"),
    ],
)
def test_what_is_wrong(
    path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        read(path, text)
    last = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and words in last and str(path) in last or "not allowed" in words


def test_bytes_that_are_no_text(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data, words in ((b"\xff", "is not YAML"), (b"x" * (1 << 20) + b"x", "at most 1048576")):
        path.write_bytes(data)
        with pytest.raises(SystemExit):
            parser().parse_args([f"--config={path}"])
        assert words in capsys.readouterr().err


def test_help_needs_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["--config", "/no/such", "--help"])
    assert end.value.code == 0 and "--config FILE" in capsys.readouterr().out
