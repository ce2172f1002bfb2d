"""The supervisor with real processes as shards and router: whoever dies, nothing is left."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock_launcher.child import Role
from penstock_launcher.logs import Log
from penstock_launcher.supervisor import Death, first_cause

GROUP = Path(__file__).with_name("group.py")


def _heed_signals() -> None:
    """Also where these tests run in a shell's background, which ignores SIGINT, or under nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Group:
    """A running launcher with stand-ins, and the lines that it has logged."""

    def __init__(self, tmp_path: Path, shards: list[dict], router: dict, **plan: object) -> None:
        self.prefix = tmp_path / "run"
        settings = {"shards": shards, "router": router, "grace": 2, "prefix": str(self.prefix)}
        self.process = subprocess.Popen(
            [sys.executable, str(GROUP)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_signals,
        )
        self.process.stdin.write(json.dumps(settings | plan))
        self.process.stdin.close()
        self.process.stdin = None  # communicate() would flush it
        self.lines: list[str] = []
        self.pids: list[int] = []

    def read_until(self, word: str) -> str:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            for start in (" started ", " up "):
                if f"launcher:{start}" in line:
                    self.pids = [int(pid) for pid in line.rpartition(start)[2].split()]
            if word in line:
                return line
        raise AssertionError(f"never said {word!r}: {self.lines}")

    def wait(self, timeout: float = 60) -> int:
        """The exit code; the rest of the log is in `lines`."""
        output, _ = self.process.communicate(timeout=timeout)
        self.lines += output.splitlines()
        return self.process.returncode

    def assert_nothing_left(self, within: float = 0.0) -> None:
        end = time.monotonic() + within
        while (left := self.left()) and time.monotonic() < end:
            time.sleep(0.02)
        assert left == []

    def left(self) -> list[object]:
        folders = list(self.prefix.parent.glob("run-*"))
        return [pid for pid in self.pids if group_lives(pid)] + folders + self.janitors()

    def janitor(self) -> int:
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        (janitor,) = {int(pid) for pid in children} - set(self.pids)
        return janitor

    def janitors(self) -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_text()
                if str(self.prefix) in line and "janitor" in line:
                    found.append(line)
            except OSError:
                continue
        return found


def group_lives(group: int) -> bool:
    """A process that is no zombie is still in the process group."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


@pytest.fixture
def start(tmp_path):
    """Starts groups, and kills what a failed test leaves."""
    groups: list[Group] = []

    def start_group(shards: list[dict], router: dict | None = None, **plan: object) -> Group:
        groups.append(Group(tmp_path, shards, router or {}, **plan))
        return groups[-1]

    yield start_group
    for group in groups:
        group.process.kill()
        group.process.wait()
        for pid in group.pids:
            if group_lives(pid):
                os.killpg(pid, signal.SIGKILL)


def test_router_starts_when_all_shards_are_ready(start, tmp_path):
    """The router's report is younger than the slowest shard's readiness."""
    reports = [str(tmp_path / f"report-{i}") for i in range(3)]
    shards = [
        {"ready_after": 0.6, "report": reports[0]},
        {"report": reports[1]},
    ]
    group = start(shards, {"report": reports[2]})
    group.read_until("launcher: up")
    assert os.stat(reports[2]).st_mtime - os.stat(reports[0]).st_mtime > 0.6
    group.process.terminate()
    assert group.wait() == 0
    group.assert_nothing_left()


def test_child_knows_only_what_it_should(start, tmp_path):
    report = tmp_path / "report"
    group = start([{"report": str(report)}])
    group.read_until("launcher: up")
    seen = json.loads(report.read_text())
    assert seen["argv"][-2].endswith("stand_in.py") and seen["argv"][-1] == ""
    assert seen["environment"]["PENSTOCK_READY_FD"].isdigit()
    # pass_fds closes everything else: the pipe of the janitor stays the launcher's
    open_fds = os.listdir(f"/proc/{group.pids[0]}/fd")
    assert len(open_fds) <= 4


@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_child_killed_while_serving(start, victim, number):
    group = start([{}, {}])
    group.read_until("launcher: up")
    os.kill(group.pids[victim], number)
    killed = time.monotonic()
    assert group.wait() == 1
    assert time.monotonic() - killed < 60
    name = "router" if victim == 2 else f"shard {victim}"
    if number == signal.SIGTERM:  # the stand-in ends with code 0
        assert f"{name} ended with code 0, although nobody asked it to end" in group.lines[-1]
    else:
        assert f"{name} was killed by {number.name}" in group.lines[-1]
    group.assert_nothing_left()


@pytest.mark.parametrize("code", [0, 1, 3, -signal.SIGABRT])
@pytest.mark.parametrize("who", ["shard", "router"])
def test_child_ends_while_starting(start, who, code):
    words = ["Traceback (most recent call last):", "RuntimeError: out of memory"]
    bad = {"ready_after": None, "end_after": 0.1, "end_with": code, "last_words": words}
    group = start([{}, bad] if who == "shard" else [{}, {}], bad if who == "router" else {})
    assert group.wait() == 1
    name = "shard 1" if who == "shard" else "router"
    how = "was killed by SIGABRT" if code < 0 else f"ended with code {code}"
    assert f"ERROR launcher: {name} {how}" in group.lines[-1]
    assert "RuntimeError: out of memory" in group.lines[-1]
    assert "RuntimeError: out of memory" in group.lines  # and as the child wrote it
    group.assert_nothing_left()


def test_first_cause_is_named_not_its_consequences(start):
    """Shard 0 is killed; its peer and the router then fail, each with a code of its own."""
    shards = [{}, {"end_when_gone": "shard 0", "end_with": 1, "last_words": ["peer lost"]}]
    group = start(shards, {"end_when_gone": "shard 0", "end_with": 1})
    group.read_until("launcher: up")
    os.kill(group.pids[0], signal.SIGKILL)
    assert group.wait() == 1
    assert "shard 0 was killed by SIGKILL" in group.lines[-1]
    group.assert_nothing_left()


def death(name: str, code: int, order: int) -> Death:
    role = Role.ROUTER if name == "router" else Role.SHARD
    return Death(SimpleNamespace(name=name, program=SimpleNamespace(role=role)), code, order)


@pytest.mark.parametrize(
    "deaths, cause",
    [
        ([("router", 1), ("shard 0", 1)], "shard 0"),
        ([("router", 1), ("shard 0", 0), ("shard 1", 0)], "router"),
        ([("shard 1", 1), ("router", 1), ("shard 0", 1)], "shard 1"),
        ([("shard 1", -signal.SIGABRT), ("shard 0", -signal.SIGKILL)], "shard 0"),
        ([("shard 0", 0), ("router", -signal.SIGKILL)], "router"),
        ([("shard 0", 0), ("router", 0)], "router"),
        ([("shard 0", 0)], "shard 0"),
        ([("shard 1", -signal.SIGSEGV), ("shard 0", -signal.SIGKILL)], "shard 1"),
    ],
)
def test_first_cause(deaths, cause):
    assert first_cause(death(*d, i) for i, d in enumerate(deaths)).child.name == cause


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_signal_drains(start, number, tmp_path):
    drained = tmp_path / "drained"
    group = start([{}, {}], {"drain_until": str(drained)})
    group.read_until("launcher: up")
    group.process.send_signal(number)
    group.read_until("shutting down")
    time.sleep(0.25)
    assert all(group_lives(pid) for pid in group.pids), "the shards serve while the router drains"
    drained.touch()
    assert group.wait() == 0
    assert group.lines[-1].endswith("shut down")
    group.assert_nothing_left()


def test_router_that_drains_too_long_is_killed(start):
    group = start([{}], {"ignore_sigterm": True}, grace=-5.5)  # the margin comes on top
    group.read_until("launcher: up")
    group.process.terminate()
    assert group.wait() == 1
    assert "did not drain in time" in group.lines[-1]
    assert any(line.startswith("router: ") for line in group.lines), "no stack"
    group.assert_nothing_left()


def test_an_operator_asks_where_everything_stands(start):
    """SIGUSR1 to the launcher: each process writes its stack, and goes on."""
    group = start([{}, {}], {})
    group.read_until("launcher: up")
    group.process.send_signal(signal.SIGUSR1)
    for _ in range(3):  # in any order
        group.read_until(": Current thread")
    said = "\n".join(group.lines)
    assert all(f"{name}: Current thread" in said for name in ("shard 0", "shard 1", "router"))
    group.process.terminate()
    assert group.wait() == 0


def test_router_that_fails_to_drain(start):
    group = start([{}], {"drain_code": 5})
    group.read_until("launcher: up")
    group.process.terminate()
    assert group.wait() == 1
    assert "router ended with code 5" in group.lines[-1]
    group.assert_nothing_left()


def test_shard_that_dies_during_the_drain(start):
    group = start([{}, {}], {"drain_seconds": 600})
    group.read_until("launcher: up")
    group.process.terminate()
    group.read_until("shutting down")
    os.kill(group.pids[1], signal.SIGKILL)
    assert group.wait() == 1
    assert "shard 1 was killed by SIGKILL" in group.lines[-1]
    group.assert_nothing_left()


def test_router_that_takes_long_to_end(start):
    """Its shards are gone long before it, and it is the cause."""
    group = start(
        [{}],
        {"end_when_gone": "shard 0", "end_late": 1.0, "end_with": 4, "last_words": ["port taken"]},
    )
    group.read_until("launcher: up")
    os.kill(group.pids[0], signal.SIGTERM)  # ends with code 0, as one without a stream does
    assert group.wait() == 1
    assert "router ended with code 4" in group.lines[-1] and "port taken" in group.lines[-1]


def test_L7_shard_that_fails_when_asked_to_end(start):
    """Behind a router that has drained."""
    words = ["the cache could not be freed"]
    group = start([{}, {"drain_code": 3, "say": words}], {})
    group.read_until("launcher: up")
    group.process.terminate()
    assert group.wait() == 1
    assert "shard 1 ended with code 3" in group.lines[-1] and words[0] in group.lines[-1]
    group.assert_nothing_left()


@pytest.mark.parametrize(("name", "phase"), [("shard 1", "started"), ("router", "launcher: up")])
def test_stopped_child(start, name, phase):
    """M4: it is said who stands still, while loading or later, and when it goes on."""
    loading = {"ready_after": None if phase == "started" else 0.0}
    group = start([{}, loading])
    group.read_until(phase)
    victim = group.pids[1 if name == "shard 1" else 2]
    os.kill(victim, signal.SIGSTOP)
    begun = time.monotonic()
    line = group.read_until("is stopped")
    assert time.monotonic() - begun < 60 and "WARN" in line
    assert f"launcher: {name} (process {victim}) is stopped" in line
    os.kill(victim, signal.SIGCONT)
    assert name in group.read_until("goes on")
    os.kill(victim, signal.SIGSTOP)
    group.process.terminate()
    assert group.wait() == 0, group.lines
    group.assert_nothing_left()


def test_child_that_stays_stopped(start):
    group = start([{"ready_after": None}], stopped_limit=3)
    group.read_until("started")
    os.kill(group.pids[0], signal.SIGSTOP)
    assert group.wait() == 1
    assert "shard 0 was stopped, and nobody let it go on for 3 s" in group.lines[-1]
    group.assert_nothing_left()


@pytest.mark.parametrize("ends", ["exit 0", "exit 1"])
def test_where_a_stopped_child_stands(start, tmp_path, monkeypatch, ends):
    """It cannot say so itself: a program that reads its memory does, where there is one."""
    tracer = tmp_path / "bin" / "py-spy"
    tracer.parent.mkdir()
    tracer.write_text(f'#!/bin/sh\necho "Thread (idle) $*"\n{ends}\n')
    tracer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tracer.parent}:{os.environ['PATH']}")
    group = start([{"ready_after": None}], stopped_limit=3)
    group.read_until("started")
    os.kill(group.pids[0], signal.SIGSTOP)
    assert group.wait() == 1
    said = f"Thread (idle) dump --nonblocking --pid {group.pids[0]}"
    assert (said in group.lines) == (ends == "exit 0")
    group.assert_nothing_left()


def test_second_signal_ends_at_once(start):
    group = start([{"ignore_sigterm": True}], {"drain_seconds": 600}, grace=600)
    group.read_until("launcher: up")
    group.process.terminate()
    group.read_until("shutting down")
    group.process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    assert group.wait() == 128 + signal.SIGINT
    assert time.monotonic() - sent < 60
    assert "stopped at once" in group.lines[-1]
    group.assert_nothing_left()


def test_stop_while_shards_load(start):
    group = start([{"ready_after": None}, {"ready_after": None, "ignore_sigterm": True}])
    group.read_until("started")
    group.process.terminate()
    assert group.wait() == 0
    group.assert_nothing_left()


@pytest.mark.parametrize("phase", ["started", "launcher: up"])
def test_launcher_killed(start, phase):
    """SIGKILL leaves the launcher no last act: the kernel and the janitor clean up."""
    stubborn = {"ignore_sigterm": True, "grandchild": True}
    loading = {"ready_after": None if phase == "started" else 0.0}
    group = start([stubborn | loading, stubborn], stubborn)
    group.read_until(phase)
    time.sleep(0.3)  # grandchildren are there
    assert all(group_lives(pid) for pid in group.pids)
    os.killpg(group.process.pid, signal.SIGKILL)
    group.process.wait()
    group.assert_nothing_left(within=60)


def test_launcher_and_janitor_killed(start):
    """Without the janitor the kernel alone (PR_SET_PDEATHSIG) ends the children."""
    group = start([{"ignore_sigterm": True}, {}])
    group.read_until("launcher: up")
    os.kill(group.janitor(), signal.SIGKILL)
    group.process.kill()
    group.process.wait()
    end = time.monotonic() + 60
    while any(map(group_lives, group.pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(group_lives, group.pids))


def test_grandchildren_die_too(start):
    group = start([{"grandchild": True}], {"grandchild": True})
    group.read_until("launcher: up")
    time.sleep(0.3)
    os.kill(group.pids[0], signal.SIGKILL)
    assert group.wait() == 1
    group.assert_nothing_left()


def test_broken_contract(start):
    for config in ({"ready_line": ["no object"]}, {"close_ready_pipe": True}):
        group = start([{}], config)
        assert group.wait() == 1
        assert "ERROR launcher: router" in group.lines[-1]
        group.assert_nothing_left()


def test_thousands_of_lines_and_a_long_one(start):
    """More than a pipe holds: nothing is lost, nothing stalls, the order stays."""
    say = [f"line {number} {'x' * 100}" for number in range(5000)] + ["y" * 200_000, "last"]
    group = start([{"say": say}])
    group.read_until("launcher: up")
    group.process.terminate()
    assert group.wait() == 0
    lines = [line for line in group.lines if line.startswith("line ")]
    assert lines == say[:5000]
    (long,) = [line for line in group.lines if line.startswith("yyy")]
    assert len(long) < 70_000 and "bytes more" in long
    assert "last" in group.lines


def test_json_log(start):
    group = start([{"say": ["plain", json.dumps({"message": "own", "level": "WARN"})]}], json=True)
    group.read_until("up ")
    group.process.terminate()
    assert group.wait() == 0
    records = [json.loads(line) for line in group.lines]
    by_message = {record["message"]: record for record in records}
    assert by_message["plain"]["process"] == "shard 0"
    assert by_message["own"]["level"] == "WARN"


def test_two_launchers_do_not_collide(start):
    first, second = start([{}]), start([{}])
    for group in (first, second):
        group.read_until("launcher: up")
    folders = list(first.prefix.parent.glob("run-*"))
    assert len(folders) == 2
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)
    for group in (first, second):
        group.process.terminate()
        assert group.wait() == 0
    second.assert_nothing_left()


def test_janitor_that_was_killed_is_not_missed(start):
    """Killing it is nobody's failure: the launcher removes the folder itself."""
    group = start([{}])
    group.read_until("launcher: up")
    os.kill(group.janitor(), signal.SIGKILL)
    time.sleep(0.1)
    group.process.terminate()
    assert group.wait() == 0
    group.assert_nothing_left()


def test_waiting_is_said(monkeypatch):
    """`ready` speaks up while a child takes its time."""
    from penstock_launcher import supervisor as module

    async def scenario() -> list[str]:
        monkeypatch.setattr(module, "REMIND", 0.05)
        stream = io.StringIO()
        log = Log(as_json=False, stream=stream)
        group = module.Supervisor(log, SimpleNamespace(), 1)
        loop = asyncio.get_running_loop()
        children = [SimpleNamespace(name=f"shard {i}", ready=loop.create_future()) for i in (0, 1)]
        children[0].ready.set_result({"a": 1})
        loop.call_later(1.0, children[1].ready.set_result, {"b": 2})
        assert await group.ready(children, 60.0) == [{"a": 1}, {"b": 2}]
        return stream.getvalue().splitlines()

    said = asyncio.run(scenario())
    assert len(said) >= 2 and all("waiting for shard 1 to be ready" in line for line in said)
    assert all("left, as the last start went" in line for line in said)
