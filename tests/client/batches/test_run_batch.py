"""`penstock run-batch` against a small real HTTP server: every line once, whatever happens."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.batches import requests, results, run_batch

Lines = list[dict[str, Any]]


def entry(name: object, content: str, **changes: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    fields = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return fields | changes


def write(path: Path, entries: list[Any]) -> Path:
    path.write_text("".join(f"{e if isinstance(e, str) else json.dumps(e)}\n" for e in entries))
    return path


def read(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(source: Path, out: Path, url: str, *more: str) -> int:
    options = ["--url", url, "--disable-tqdm", "--api-key", "k"]
    return run_batch.main(["-i", str(source), "-o", str(out), *options, *more])


def test_every_line_has_its_answer(chat_server: Any, tmp_path: Path) -> None:
    server, url = chat_server
    server.seconds = 0.01
    source = write(
        tmp_path / "in.jsonl", [entry(f"r{i}", f"word{i}") for i in range(40)] + ["", " "]
    )
    assert run(source, tmp_path / "out.jsonl", f"{url}/v1", "--max-concurrency", "4") == 0
    answers = {line["custom_id"]: line for line in read(tmp_path / "out.jsonl")}
    assert len(answers) == 40 and server.most_in_flight == 4
    for i in range(40):
        line = answers[f"r{i}"]
        assert line["id"] == f"batch_req_{i + 1}" and line["error"] is None
        assert line["response"]["status_code"] == 200
        shown = line["response"]["body"]["choices"][0]["message"]["content"]
        assert shown == f"WORD{i}"


def test_an_error_is_a_line(chat_server: Any, tmp_path: Path) -> None:
    server, url = chat_server
    server.behave = lambda content: 422 if content == "bad" else 200
    wrong: list[tuple[Any, str]] = [
        ("{no", "invalid_json_line"),
        ("[1]", "invalid_json_line"),
        (entry(5, "x"), "invalid_custom_id"),
        (entry("r" * 513, "x"), "invalid_custom_id"),
        (entry("a", "x", method="GET"), "invalid_method"),
        (entry("b", "x", url="/v1/embeddings"), "invalid_url"),
        (entry("b2", "x", url=["/v1/completions"]), "invalid_url"),
        (entry("c", "x", body=[]), "invalid_body"),
        (entry("d", "x", body={"stream": True}), "invalid_body"),
        (entry("same", "again"), "duplicate_custom_id"),
    ]
    entries = [entry("same", "good"), entry("refused", "bad"), *(each for each, _ in wrong)]
    source = write(tmp_path / "in.jsonl", entries)
    out, failed = tmp_path / "out.jsonl", tmp_path / "failed.jsonl"
    assert run(source, out, url, "--error-file", str(failed)) == 0
    assert [line["custom_id"] for line in read(out)] == ["same"]
    lines = {line["id"]: line for line in read(failed)}
    assert lines["batch_req_2"]["response"]["status_code"] == 422
    assert lines["batch_req_2"]["response"]["body"]["error"]["message"] == "no: bad"
    for number, (_, code) in enumerate(wrong, 3):
        assert lines[f"batch_req_{number}"]["error"]["code"] == code
        assert lines[f"batch_req_{number}"]["response"] is None
    assert sorted(server.asked) == ["bad", "good"]


def test_a_line_that_is_too_long_harms_no_other(
    chat_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = chat_server
    monkeypatch.setattr(requests, "LONGEST_LINE", 1000)
    entries = [entry("a", "one"), entry("b", "x" * 5000), entry("c", "three")]
    assert run(write(tmp_path / "in", entries), tmp_path / "out", url) == 0
    errors = {line["id"]: line["error"] for line in read(tmp_path / "out")}
    assert errors["batch_req_2"]["code"] == "line_too_long"
    assert errors["batch_req_1"] is None and errors["batch_req_3"] is None


def test_goes_on_behind_a_torn_line(chat_server: Any, tmp_path: Path) -> None:
    server, url = chat_server
    source = write(tmp_path / "in", [entry(f"r{i}", f"w{i}") for i in range(6)])
    out = tmp_path / "out"
    assert run(source, out, url) == 0
    whole = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(whole[:3]) + whole[3][:20])
    kept = {json.loads(line)["custom_id"] for line in whole[:3]}
    server.asked.clear()
    assert run(source, out, url) == 0
    assert len(server.asked) == 3
    assert not {f"r{content[1:]}" for content in server.asked} & kept
    assert sorted(line["custom_id"] for line in read(out)) == [f"r{i}" for i in range(6)]
    out.write_bytes(whole[0][:20])  # nothing but a torn line
    assert run(source, out, url) == 0 and len(read(out)) == 6


def test_an_output_of_another_input_is_left_alone(
    chat_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, url = chat_server
    source = write(tmp_path / "in", [entry("mine", "w")])
    out = tmp_path / "out"
    for text in ('{"id": "batch_req_1", "custom_id": "other"}\n', "hello\n", '{"id": "x"}\n'):
        out.write_text(text)
        assert run(source, out, url) == 1
        assert "answers no line of this input" in capsys.readouterr().err
        assert out.read_text() == text
    assert not server.asked


def test_waits_for_a_busy_server_and_stops_where_it_is_not_let_in(
    chat_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, url = chat_server
    tries: dict[str, int] = {}

    def busy_once(content: str) -> int:
        tries[content] = tries.get(content, 0) + 1
        return 429 if tries[content] == 1 else 200

    server.behave = busy_once
    source = write(tmp_path / "in", [entry(f"r{i}", f"w{i}") for i in range(3)])
    assert run(source, tmp_path / "out", url) == 0
    assert {line["response"]["status_code"] for line in read(tmp_path / "out")} == {200}
    assert set(tries.values()) == {2}
    server.behave = lambda content: 429
    assert run(source, tmp_path / "late", url, "--tries", "1") == 0  # a line says so
    assert {line["response"]["status_code"] for line in read(tmp_path / "late")} == {429}
    server.behave = lambda content: 401
    assert run(source, tmp_path / "locked", url) == 1
    assert "answers 401: no: w" in capsys.readouterr().err
    assert run(source, tmp_path / "none", "http://127.0.0.1:9", "--tries", "1") == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert (tmp_path / "none").read_bytes() == b""


def test_killed_it_repeats_nothing_that_is_written(chat_server: Any, tmp_path: Path) -> None:
    server, url = chat_server
    server.seconds = 0.02
    source = write(tmp_path / "in", [entry(f"r{i}", f"w{i}") for i in range(60)])
    out = tmp_path / "out"
    command = [sys.executable, "-m", "penstock.batches.run_batch", "-i", source, "-o", out]
    command += ["--url", url, "--max-concurrency", "2", "--disable-tqdm"]
    child = subprocess.Popen(command)
    while not out.exists() or out.stat().st_size < 500:
        assert child.poll() is None
        time.sleep(0.01)
    server.seconds = 60.0  # what is under way now stays so
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 1 and "another process writes to" in second.stderr
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    written = out.read_bytes().count(b"\n")
    assert 0 < written < 60
    server.seconds = 0
    before = len(server.asked)
    assert run(source, out, url) == 0
    assert len(server.asked) - before == 60 - written
    names = [line["custom_id"] for line in read(out)]
    assert len(names) == 60 and len(set(names)) == 60


def test_a_full_disk_ends_it(
    chat_server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(file: Any, lines: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results.ResultFile, "append", full)
    source = write(tmp_path / "in", [entry(f"r{i}", f"w{i}") for i in range(3000)])
    assert run(source, tmp_path / "out", chat_server[1]) == 1
    assert "No space left" in capsys.readouterr().err
    assert run(source, Path("/dev/zero"), chat_server[1]) == 1
    assert "/dev/zero is no plain file" in capsys.readouterr().err


def test_options_for_the_launcher() -> None:
    options = run_batch.launcher_options(["--num-shard", "2", "--json-output", "--dtype=float32"])
    assert options == {"num_shard": "2", "json_output": True, "dtype": "float32"}
    names = ["--served-model-name", "a", "--served-model-name=b"]
    assert run_batch.launcher_options(names) == {"served_model_name": ["a", "b"]}
    with pytest.raises(ValueError, match="expected an option"):
        run_batch.launcher_options(["num-shard"])


def test_a_wrong_option_for_the_launcher_is_named_as_it_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [entry("a", "x")])
    options = ["-i", str(source), "-o", str(tmp_path / "out"), "--disable-tqdm"]
    assert run_batch.main([*options, "--model", "/none", "--", "--num-shard", "0"]) == 1
    assert "run-batch: --num-shard: must be a whole number" in capsys.readouterr().err


def test_what_cannot_be_done_is_said_in_words(
    chat_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write(tmp_path / "in.jsonl", [entry("a", "x")]), tmp_path / "out.jsonl"
    assert run(source, out, "http://127.0.0.1:9", "--tries", "1000") == 1  # it does not wait
    said = capsys.readouterr().err
    assert "http://127.0.0.1:9 cannot be reached: [Errno" in said and "ConnectionKey" not in said
    for url in ("ftp://127.0.0.1", "127.0.0.1", "http://127.0.0.1:99999"):
        assert run(source, out, url, "--tries", "1000") == 1
        assert f"'{url}' is no address of a server" in capsys.readouterr().err
    assert run(source, out, chat_server[1], "--error-file", str(tmp_path / "." / out.name)) == 1
    assert "--error-file and --output must be two files" in capsys.readouterr().err
