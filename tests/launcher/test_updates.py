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
