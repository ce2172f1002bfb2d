"""A server of a program's own: what it says, and that nothing of it outlives the program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from penstock import EmbeddedServer, ServerError
from support.server import gone

START = 60.0  # seconds


def program(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python program of a user's own, in a session of its own as a terminal's job has it."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


SLEEPER = """
    import multiprocessing, os, sys, threading, time
    from penstock import EmbeddedServer
    server = EmbeddedServer(shard_uds_path=sys.argv[1])
    if len(sys.argv) > 2 and not os.fork():
        time.sleep(1000)  # a fork has all descriptors, and is not the owner
    print(server.process.pid, flush=True)
    time.sleep(1000)
"""


def family(launcher: int) -> list[psutil.Process]:
    """The launcher and all that it has started."""
    head = psutil.Process(launcher)
    return [head, *head.children(recursive=True)]


def test_it_serves_until_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And variables that mean options to a launcher mean nothing here."""
    for name in ("API_KEY", "DTYPE", "MODEL_ID", "TGI_MAX_TOTAL_TOKENS", "MASTER_PORT"):
        monkeypatch.setenv(name, "somebody-elses")
    with EmbeddedServer(shard_uds_path=tmp_path / "run", quiet=True) as server:
        with urllib.request.urlopen(f"{server.url}/info") as answer:
            assert json.load(answer)["model_id"] == server.facts["model"] == "penstock-demo"
        assert server.alive
        server.check()
        processes = family(server.process.pid)
        assert len(processes) > 2
    assert gone(processes, 5)
    assert not list(tmp_path.iterdir())
    assert not server.alive
    server.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "/no/such/folder"}, "is no folder here"),
        (
            {"max_input_tokens": 9, "max_total_tokens": 9},
            "^max_input_tokens must be less than max_total_tokens: 9 and 9 were given",
        ),
        ({"nonsense": 3}, "unrecognized arguments: nonsense=3"),
        ({"dtype": "float7"}, "float7"),
    ],
)
def test_what_the_launcher_said_is_raised(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ServerError, match=sentence):
        EmbeddedServer(quiet=True, **options)  # type: ignore[arg-type]


@pytest.mark.full
def test_a_key_stands_on_no_command_line(tmp_path: Path) -> None:
    with EmbeddedServer(
        quiet=True, api_key="secret-key", shard_uds_path=tmp_path / "run"
    ) as server:
        for process in family(server.process.pid):
            assert "secret-key" not in " ".join(process.cmdline())
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{server.url}/info")


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.full),
        pytest.param(signal.SIGINT, marks=pytest.mark.full),
    ],
)
def test_nothing_outlives_its_program(tmp_path: Path, number: signal.Signals) -> None:
    with program(SLEEPER, str(tmp_path / "run")) as user:
        assert user.stdout is not None
        processes = family(int(user.stdout.readline()))
        user.send_signal(number)
        user.wait(START)
    assert gone(processes, 10)
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_a_fork_of_its_program_keeps_nothing_alive(tmp_path: Path) -> None:
    with program(SLEEPER, str(tmp_path / "run"), "fork") as user:
        assert user.stdout is not None
        processes = family(int(user.stdout.readline()))
        try:
            user.kill()
            user.wait(START)
            assert gone(processes, 10)
        finally:
            os.killpg(user.pid, signal.SIGKILL)


def test_nothing_heavy_is_loaded() -> None:
    code = "import penstock, sys; print(*{'torch', 'grpc', 'aiohttp', 'numpy'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("", "")
