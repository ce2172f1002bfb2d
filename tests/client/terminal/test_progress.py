"""What a program of one's own shows while its server starts: bars on a terminal, else lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.terminals import on_terminal

PENSTOCK = (sys.executable, "-m", "penstock.command")
PROGRAM = "from penstock import LLM; LLM(device='cpu').close()"
READY = r"Penstock ready: http://127\.0\.0\.1:\d+"


@pytest.mark.parametrize(
    "command",
    [
        (
            *PENSTOCK,
            "run",
            "--model",
            "demo",
            "--temperature",
            "0",
            "What is the capital of Italy?",
        ),
        pytest.param((sys.executable, "-c", PROGRAM), marks=pytest.mark.full),
    ],
    ids=["run", "LLM"],
)
def test_bars_on_a_terminal(command: tuple[str, ...], tmp_path: Path) -> None:
    with on_terminal(*command, XDG_CACHE_HOME=str(tmp_path)) as terminal:
        terminal.wait(r"starting penstock-demo\r\n")
        terminal.wait(r"shard 0: weights: 100%\|█+\| 10\.4M/10\.4M \[[^]]+B/s\]")
        terminal.wait(READY)
        assert terminal.end() == 0
        assert " % (" not in terminal.shown, "the lines of a log"
        assert "{" not in terminal.shown, "records are not for people"


def test_lines_elsewhere(tmp_path: Path) -> None:
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environ, timeout=120
    )
    assert said.returncode == 0 and "\r" not in said.stderr
    first, *weights, last = said.stderr.splitlines()
    assert "no model was given" in first and re.match(READY, last)
    assert weights[-1].startswith("shard 0: weights: 100 % (10.36 MB of 10.36 MB)")
