"""`penstock migrate --check`: real servers, one with other limits than the other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.replay.command import main
from support.server import SMALL, running_server


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("servers")
    limits = ("--max-total-tokens", "64", "--max-top-n-tokens", "0", "--disable-grammar-support")
    keys = ("--api-key", "second")
    with (
        running_server(folder / "first", "--max-total-tokens", "256", *SMALL) as first,
        running_server(folder / "second", *limits, *keys, *SMALL) as second,
    ):
        yield first.url, second.url


def found(capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, str], tuple[str, str]]:
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {(row["request"], row["what"]): (row["first"], row["second"]) for row in rows}


def test_a_server_is_like_itself(
    servers: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", servers[0], f"{servers[0]}/v1"]) == 0
    assert capsys.readouterr().out == "19 requests: 19 alike, 0 differ\n"


def test_other_limits_are_found(
    servers: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", *servers, "--second-api-key", "second", "--json"]) == 1
    rows = found(capsys)
    assert rows["/info", "max_total_tokens"] == ("256", "64")
    assert rows["/v1/models", "data[].max_model_len"] == ("256", "64")
    first, second = rows["chat, JSON schema", "status"]
    assert first == "200" and second.startswith("422: ") and "grammar" in second
    same = {"/health", "/no/such/route", "chat", "chat, streamed", "text", "text, streamed"}
    same |= {"generate", "generate, streamed", "refused: temperature"}
    assert not same & {request for request, _ in rows}


def test_a_file_of_requests(
    servers: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "requests.jsonl"
    long = {"prompt": "The capital of", "max_tokens": 100, "temperature": 0, "ignore_eos": True}
    lines = [
        {"custom_id": "long", "method": "POST", "url": "/v1/completions", "body": long},
        {"inputs": "The capital of", "parameters": {"max_new_tokens": 3}, "stream": True},
        {"url": "/health"},
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    asked = ["--check", *servers, "-i", str(path), "--second-api-key", "second"]
    assert main([*asked, "--json"]) == 1
    rows = found(capsys)
    assert {request for request, _ in rows} == {"long"} and rows["long", "status"][0] == "200"
    assert main(asked) == 1
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["request", "what", *servers]
    assert table[1].startswith("long     status  200")
    assert table[-1] == "3 requests: 2 alike, 1 differ"


def test_a_missing_key_is_a_difference(
    servers: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"inputs": "a"}')
    assert main(["--check", *servers, "-i", str(path), "--json"]) == 1
    assert found(capsys)["request 1", "status"][1].startswith("401: ")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "request 1: is not JSON"),
        ("[]", "request 1: must be a JSON object"),
        ('{"a": 1}', "request 1: has neither `url` nor"),
        ('{"url": "v1", "body": {}}', "request 1: `url` must be a path such as /v1/completions"),
        ('{"url": "/a b"}', "`url` must be a path"),
        ('{"url": "/a", "method": "PUT"}', "`method` must be GET or POST, not 'PUT'"),
        ('{"url": "/a", "body": []}', "`body` must be a JSON object"),
        ("", "has no requests"),
    ],
)
def test_a_file_that_is_wrong(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(line)
    assert main(["--check", "http://127.0.0.1:1", "http://127.0.0.1:1", "-i", str(path)]) == 2
    error = capsys.readouterr().err
    assert words in error and str(path) in error


def test_servers_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "http://127.0.0.1:1", "http://127.0.0.1:1"]) == 2
    assert "http://127.0.0.1:1: " in capsys.readouterr().err
    assert main(["--check", "nowhere", "http://127.0.0.1:1"]) == 2
    assert "a server is a URL such as" in capsys.readouterr().err


def test_the_command() -> None:
    command = [sys.executable, "-m", "penstock.command", "migrate", "--check", "nowhere", "there"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and "penstock migrate --check: a server is" in result.stderr
