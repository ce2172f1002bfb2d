"""`--config FILE` of every command: what is wrong in it names the file, the line and the key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.command import COMMANDS

BENCHES = ("serve", "throughput", "latency", "startup")
EACH = [(name,) for name in COMMANDS if name != "bench"] + [("bench", name) for name in BENCHES]
# of each command: an option that takes a value with a rule, and a value that breaks it
WRONG = {
    ("serve",): ("port", "http"),
    ("run-batch",): ("max-concurrency", "0"),
    ("quantize",): ("format", "zip"),
    ("merge",): ("device", "tpu"),
    ("chat",): ("temperature", "warm"),
    ("run",): ("max-tokens", "few"),
    ("doctor",): ("port", "http"),
    ("migrate",): ("markdown", "3"),
    ("download",): ("json-output", "3"),
    ("bench", "serve"): ("num-prompts", "0"),
    ("bench", "throughput"): ("seed", "-1"),
    ("bench", "latency"): ("seed", "-1"),
    ("bench", "startup"): ("seed", "-1"),
}


def penstock(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.command", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_every_command_is_tried() -> None:
    assert set(EACH) == set(WRONG)


@pytest.mark.parametrize("command", EACH, ids=" ".join)
def test_what_is_wrong_names_file_line_and_key(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    name, value = WRONG[command]
    for text, key in ((f"# ours\n{name}: {value}\n", name), ("\nno-such: 1\n", "no-such")):
        path.write_text(text)
        result = penstock(*command, "--config", str(path))
        assert result.returncode == 2, result.stderr
        assert f"--config {path}, line 2: {key}" in result.stderr.splitlines()[-1]
