"""SIGHUP: an operator's wish, or the end of a terminal."""

import json
import os
import signal

import pytest

from penstock_launcher import updates
from penstock_launcher.errors import LauncherError
from penstock_launcher.updates import Updates


class Log:
    def __init__(self):
        self.lines = []
        self.masked = []

    def info(self, line, **fields):
        self.lines.append(line)

    error = warning = info

    def mask(self, secrets):
        self.masked += secrets


@pytest.fixture(autouse=True)
def heed():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def told(one: Updates) -> list[dict]:
    os.set_blocking(one.descriptor, False)
    try:
        return [json.loads(line) for line in os.read(one.descriptor, 10**6).split(b"\n") if line]
    except BlockingIOError:
        return []


def test_keys_are_read_again_and_masked():
    log = Log()
    keys = "one", {"name": "b", "key": "two", "max_priority": 1}
    with Updates(lambda: keys, log) as one:
        assert one.wanted and one.hangup()
        assert told(one) == [{"api_key": [*keys]}]
    assert log.masked == ["one", "two"]
    assert not any("one" in line for line in log.lines)


def test_without_a_file_it_is_the_end():
    with Updates(None, Log()) as one:
        assert not one.wanted and not one.hangup()


def test_a_file_that_cannot_be_used():
    def broken():
        raise LauncherError("--api-key-file /keys holds no key")

    log = Log()
    with Updates(broken, log) as one:
        assert one.hangup() and not told(one)
    assert log.lines == [
        "SIGHUP: the API keys stay as they were: --api-key-file /keys holds no key"
    ]


def test_a_file_that_changes_is_read_when_it_is_whole(tmp_path):
    file, log = tmp_path / "keys", Log()
    file.write_text("one")
    with Updates(lambda: (file.read_text(),), log, file) as one:
        one.look()
        one.look()
        assert not told(one)
        file.write_text("tw")
        one.look()
        file.write_text("two and three")  # as it is written in pieces
        one.look()
        assert not told(one)
        one.look()
        assert told(one) == [{"api_key": ["two and three"]}]
        other = tmp_path / "other"
        other.write_text("four")
        other.replace(file)
        assert one.hangup() and told(one) == [{"api_key": ["four"]}]
        one.look()
        one.look()
        assert not told(one), "it was read once"
    assert log.lines == [
        "the file has changed: 1 API keys count from now on",
        "SIGHUP: 1 API keys count from now on",
    ]


def test_a_file_that_goes_changes_nothing(tmp_path):
    file, log = tmp_path / "keys", Log()
    file.write_text("one")

    def read():
        raise LauncherError("it is gone")

    with Updates(read, log, file) as one:
        file.unlink()
        for _ in range(4):
            one.look()
        assert not told(one)
    assert log.lines == ["the file has changed: the API keys stay as they were: it is gone"]


def test_a_terminal_that_is_gone_ends_the_server(monkeypatch):
    """But not one that was started to survive it."""
    monkeypatch.setattr(updates, "_has_terminal", lambda: True)
    one = Updates(lambda: (), Log())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    survivor = Updates(lambda: (), Log())
    with one, survivor:
        assert one.hangup() and survivor.hangup()
        monkeypatch.setattr(updates, "_has_terminal", lambda: False)
        assert not one.hangup() and survivor.hangup()


def test_a_router_that_reads_nothing_stops_nobody():
    log = Log()
    with Updates(lambda: ("x" * 1000,) * 1000, log) as one:
        assert one.hangup() and one.hangup()
        assert "does not read" in log.lines[-1]
