"""How an engine ends: nothing of it is left, whatever ended its program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tqdm import tqdm

from client.conftest import DEMO
from penstock import LLM, SamplingParams, ServerError
from penstock.embedded import CLOSED
from support.server import gone

SECONDS = 60.0
LONG = SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True)
# Whose limits do not matter: it warms up in a third of the time.
SMALL = {"device": "cpu", "max_batch_prefill_tokens": 64, "max_batch_total_tokens": 8192}
BEGIN = """
    import os, signal, sys
    from penstock import LLM, SamplingParams
    options = {"shard_uds_path": sys.argv[2], "device": "cpu"}
    options |= {"max_batch_prefill_tokens": 64, "max_batch_total_tokens": 8192}
    llm = LLM(sys.argv[1], quiet=True, launcher_options=options)
    params = SamplingParams(temperature=0, max_tokens=1500, ignore_eos=True)
    print(llm.server.process.pid, flush=True)
"""


@contextmanager
def program(code: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[Any]]]:
    """A program with an engine, and the processes of that."""
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(BEGIN) + textwrap.dedent(code),
            DEMO,
            folder / "run",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as user:
        assert user.stdout is not None
        launcher = psutil.Process(int(user.stdout.readline()))
        processes = [launcher, *launcher.children(recursive=True)]
        assert len(processes) > 2
        try:
            yield user, processes
        finally:
            if user.poll() is None:
                user.kill()
    assert gone(processes, 15)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        ("raise RuntimeError('mine')", 1, "RuntimeError: mine"),
        pytest.param("llm.generate(['a'] * 3)", 0, "100%", marks=pytest.mark.full),
        pytest.param("sys.exit(7)", 7, "", marks=pytest.mark.full),
        pytest.param("os._exit(3)", 3, "", marks=pytest.mark.full),
    ],
)
def test_ends_of_a_program(tmp_path: Path, code: str, exit_code: int, says: str) -> None:
    with program(code, tmp_path) as (user, _):
        assert user.stderr is not None
        errors = user.stderr.read()
        assert user.wait(SECONDS) == exit_code
    assert says in errors


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.full)]
)
def test_a_program_is_killed_while_it_generates(tmp_path: Path, number: signal.Signals) -> None:
    with program("llm.generate(['a'] * 500, params)", tmp_path) as (user, _):
        time.sleep(0.5)
        user.send_signal(number)
        assert user.wait(SECONDS) == -number


def test_ctrl_c_ends_a_call_and_not_the_engine(tmp_path: Path) -> None:
    """All processes of a terminal's job get the signal; the engine is in none."""
    code = """
        try:
            print("begin", flush=True)
            llm.generate(['a'] * 500, params)
        except KeyboardInterrupt:
            [output] = llm.generate('b', SamplingParams(max_tokens=2), use_tqdm=False)
            print(len(output.outputs[0].token_ids), flush=True)
            raise
    """
    with program(code, tmp_path) as (user, _):
        assert user.stdout is not None and user.stdout.readline() == "begin\n"
        time.sleep(1.0)
        os.killpg(user.pid, signal.SIGINT)
        assert int(user.stdout.readline()) >= 1
        assert user.wait(SECONDS) == -signal.SIGINT


def test_an_interrupted_call_frees_its_blocks(llm: LLM) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            llm.generate(["a"] * 300, LONG, use_tqdm=False)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    for _ in range(100):
        if llm.reset_prefix_cache():  # it says no while anything runs or waits
            break
        time.sleep(0.05)
    else:
        raise AssertionError("something still runs")
    assert llm.generate("a", SamplingParams(max_tokens=1), use_tqdm=False)[0].finished


def test_after_close_every_call_says_so(tmp_path: Path) -> None:
    """Also one that ran, in another thread."""
    options = SMALL | {"shard_uds_path": tmp_path / "run"}
    llm = LLM(DEMO, quiet=True, launcher_options=options)
    tokenizer = llm.get_tokenizer()
    raised: list[Exception] = []

    def run() -> None:
        try:
            llm.generate(["a"] * 300, LONG, use_tqdm=began)
        except ServerError as error:
            raised.append(error)

    begun = threading.Event()

    def began(**options: Any) -> Any:
        begun.set()
        return tqdm(**options | {"disable": True})

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(SECONDS)
    llm.close()
    thread.join(SECONDS)
    for call in (
        lambda: llm.generate("a"),
        lambda: llm.chat([{"role": "user", "content": "a"}], LONG),
        lambda: llm.loglikelihood(["a"], ["b"]),
        lambda: tokenizer.encode("a"),
        llm.reset_prefix_cache,
    ):
        with pytest.raises(ServerError) as caught:
            call()
        raised.append(caught.value)
    assert {str(error) for error in raised} == {CLOSED} and len(raised) == 6
    llm.close()


@pytest.mark.parametrize(
    "role", ["penstock_shard", pytest.param("penstock_router", marks=pytest.mark.full)]
)
def test_a_part_of_the_engine_is_killed(tmp_path: Path, role: str) -> None:
    options = SMALL | {"shard_uds_path": tmp_path / "run"}
    with LLM(DEMO, quiet=True, launcher_options=options) as llm:
        processes = psutil.Process(llm.server.process.pid).children(recursive=True)
        [victim] = [one for one in processes if role in one.cmdline()]
        timer = threading.Timer(0.5, victim.kill)
        timer.start()
        with pytest.raises((ServerError, ValueError), match="SIGKILL|router|shard"):
            llm.generate(["a"] * 300, LONG, use_tqdm=False)
        gone(processes, 60)  # until then the router may tell what it knows
        with pytest.raises(ServerError, match="was killed by SIGKILL"):
            llm.generate("a", LONG, use_tqdm=False)
    assert gone(processes, 10)
