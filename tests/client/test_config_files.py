"""`--config FILE` of every command: what is wrong in it names the file, the line and the key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.command import COMMANDS
from penstock_shard.weights import merge, quantize

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


# Commands that import torch, which takes seconds: a second process of theirs would say no more.
WITH_TORCH = {("quantize",): quantize.main, ("merge",): merge.main}


def penstock(*argv: str) -> tuple[int, str]:
    """Exit code and last line of standard error."""
    command = [sys.executable, "-m", "penstock.command", *argv]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return result.returncode, result.stderr.splitlines()[-1]


def test_every_command_is_tried() -> None:
    assert set(EACH) == set(WRONG)


@pytest.mark.parametrize("command", EACH, ids=" ".join)
def test_what_is_wrong_names_file_line_and_key(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "options.yaml"
    name, value = WRONG[command]
    path.write_text(f"# ours\n{name}: {value}\n")
    code, said = penstock(*command, "--config", str(path))
    assert code == 2 and f"--config {path}, line 2: {name}" in said
    path.write_text("\nno-such: 1\n")
    if command in WITH_TORCH:
        with pytest.raises(SystemExit) as ended:
            WITH_TORCH[command](["--config", str(path)])
        code, said = ended.value.code, capsys.readouterr().err.splitlines()[-1]
    else:
        code, said = penstock(*command, "--config", str(path))
    assert code == 2 and f"--config {path}, line 2: no-such" in said
