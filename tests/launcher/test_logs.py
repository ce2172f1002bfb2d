"""What the log shows of the launcher's own records and of its children's lines."""

import io
import json
import re

import pytest

from penstock_launcher.logs import MAX_LINE, LineSplitter, Log, Said, Tail
from penstock_launcher.progress import Lines
from penstock_proto.progress import Bars, Progress


def split(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + list(splitter.flush())


def logged(line: str, *, as_json: bool = False, secrets: tuple[str, ...] = ()) -> str:
    stream = io.StringIO()
    Log(as_json=as_json, secrets=secrets, stream=stream).child_line("shard 1", line)
    return stream.getvalue()


def record(**fields: object) -> str:
    return json.dumps({"timestamp": "T", "level": "INFO", "target": "penstock_shard", **fields})


def test_lines_in_any_portions():
    data = b"one\ntwo\r\n\nthree"
    expected = ["one", "two", "", "three"]
    assert split(data) == expected
    assert split(*(data[i : i + 1] for i in range(len(data)))) == expected


def test_character_across_portions():
    data = "é\n".encode()
    assert split(data[:1], data[1:]) == ["é"]


def test_long_line_is_carried_over_and_bounded():
    line = b"x" * (MAX_LINE - 1)
    assert split(line[:1000], line[1000:] + b"\nnext\n") == [line.decode(), "next"]
    long = b"y" * (3 * MAX_LINE)
    first, second = split(*(long[i : i + 1000] for i in range(0, len(long), 1000)), b"\nnext\n")
    assert first == "y" * MAX_LINE + f"… ({2 * MAX_LINE} bytes more)"
    assert second == "next"


def test_record_as_text():
    line = record(message="loaded", rank=1, device="cpu", bytes=12, nested={"a": [1]})
    expected = 'T  INFO shard 1: loaded device=cpu bytes=12 nested={"a": [1]}\n'
    assert logged(line) == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5.4e-05, "0.000054"),
        (1e-06, "0.000001"),
        (-2.5e-09, "-0.0000000025"),
        (1.5, "1.5"),
        (0.0, "0.0"),
        (1e22, "10000000000000000000000"),
        (0.1 + 0.2, "0.30000000000000004"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (10**20, "100000000000000000000"),
        (True, "true"),
        (None, "null"),
    ],
)
def test_numbers_in_text_have_no_exponent(value: object, shown: str) -> None:
    """Times of fractions of a millisecond are read by people and by `cut`, `awk` and `sort -n`."""
    assert logged(record(message="x", time=value)) == f"T  INFO shard 1: x time={shown}\n"


def test_record_as_json_gains_the_process():
    line = record(message="loaded", rank=1)
    assert json.loads(logged(line, as_json=True)) == json.loads(line) | {"process": "shard 1"}


def test_line_that_is_no_record_is_passed_on():
    assert logged("Traceback (most recent call last):") == "Traceback (most recent call last):\n"
    for line in ('{"a": 1}', "{broken", "[]", '{"message"'):
        assert logged(line) == line + "\n"
        assert json.loads(logged(line, as_json=True))["message"] == line


def test_exception_keeps_its_lines():
    line = record(message="failed", exception="Traceback\n  File x\nValueError: \x1b[31m")
    assert logged(line).splitlines() == [
        "T  INFO shard 1: failed",
        "Traceback",
        "  File x",
        "ValueError: \\x1b[31m",
    ]


def test_control_characters_cannot_forge_lines():
    for line in (
        record(message="a\nb\x1b[31m\r\x00"),
        "raw \x1b[2J\r",
        record(message="x", f="\n"),
    ):
        text = logged(line)
        assert text.endswith("\n") and text.count("\n") == 1
        assert text[:-1].isprintable()
        assert logged(line, as_json=True).count("\n") == 1


def test_secrets_are_masked():
    line = record(message="key is hunter22")
    for as_json in (False, True):
        text = logged(line, as_json=as_json, secrets=("hunter22", ""))
        assert "hunter22" not in text and "***" in text


def test_every_secret_is_masked_however_it_is_written():
    secrets = ("abcd", 'quo"te', "bcde", "abcdefgh", "é-key")
    line = record(message="abcd bcde abcdefgh", f={"x": ['quo"te', "é-key"]}, g='quo"te')
    for as_json in (False, True):
        text = logged(line, as_json=as_json, secrets=secrets)
        assert text.count("***") == 6
        for part in ("abcd", "bcde", "efgh", "quo", "key"):
            assert part not in text


def test_own_records():
    stream = io.StringIO()
    log = Log(as_json=False, stream=stream)
    log.info("started", shards=2)
    log.warning("careful")
    log.error("over")
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z  INFO launcher: started shards=2"
    first, second, third = stream.getvalue().splitlines()
    assert re.fullmatch(pattern, first)
    assert " WARN launcher: careful" in second and "ERROR launcher: over" in third


def test_a_reader_that_is_gone_does_not_end_us():
    stream = io.StringIO()
    log = Log(as_json=False, stream=stream)
    stream.close()
    log.info("unheard")
    log.info("unheard")


def test_progress_is_a_line_each_quarter():
    stream = io.StringIO()
    log = Log(as_json=True, stream=stream)
    for done in range(0, 1001, 10):
        progress = {"what": "weights", "done": done * 1000, "total": 1_000_000, "unit": "B"}
        log.child_line("shard 0", record(message="loading", progress=progress))
    messages = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert messages == [
        "shard 0: weights: 0 % (0 B of 1 MB)",
        "shard 0: weights: 25 % (250 KB of 1 MB)",
        "shard 0: weights: 50 % (500 KB of 1 MB)",
        "shard 0: weights: 75 % (750 KB of 1 MB)",
        "shard 0: weights: 100 % (1 MB of 1 MB)",
    ]


def test_progress_in_one_leap():
    said = []
    view = Lines(said.append)
    view.show(Progress("shard 0", "layers", 4, 4, "layers"))
    assert said == ["shard 0: layers: 100 % (4 of 4 layers)"]


def test_progress_bars(capsys):
    view = Bars()
    view.show(Progress("shard 0", "weights", 50, 100, "B"))
    view.show(Progress("shard 0", "weights", 100, 100, "B"))
    view.show(Progress("shard 0", "weights", 100, 100, "B"))
    view.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "100%" in line] == lines[-1:], "finished once"
    assert "shard 0: weights" in lines[-1]


def test_broken_progress_is_dropped():
    for progress in ({}, {"done": "x"}, {"done": 1, "total": []}, {"done": None}):
        assert Progress.parse("shard 0", progress) is None or progress.get("done") == 1
        logged(record(message="x", progress=progress))


def test_tail_keeps_the_last_lines():
    tail = Tail()
    for number in range(100):
        tail.add(Said(f"line {number}\nsecond {number}"))
    lines = tail.text().splitlines()
    assert len(lines) == 10 and lines[-1] == "second 99" and lines[0] == "line 95"


def test_tail_knows_an_error_that_came_last():
    log, tail = Log(as_json=True, stream=io.StringIO()), Tail()
    tail.add(log.child_line("router", record(message="no such\x1b file", level="ERROR", x=1)))
    assert tail.error == "no such\\x1b file"
    for last in (
        record(message="more", level="INFO"),
        "Traceback",
        record(message="x", progress={}),
    ):
        tail.add(log.child_line("router", record(message="first", level="ERROR")))
        tail.add(log.child_line("router", last))
        assert not tail.error


@pytest.mark.parametrize(
    "level, written", [("debug", 5), ("info", 4), ("warn", 2), ("error", 1), ("off", 0)]
)
def test_log_level(level, written):
    stream = io.StringIO()
    log = Log(as_json=True, level=level, stream=stream)
    log.info("one")
    log.warning("two")
    log.error("three")
    assert log.child_line("router", '{"level": "DEBUG", "message": "four"}')  # for the tail
    log.child_line("router", "a library's own line")
    assert len(stream.getvalue().splitlines()) == written
