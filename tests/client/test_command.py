"""The command `penstock`."""

from __future__ import annotations

import subprocess
import sys


def penstock(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.command", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_names_its_commands() -> None:
    result = penstock("--help")
    assert result.returncode == 0
    for name in ("serve", "bench", "run-batch", "quantize", "migrate", "download"):
        assert f"  {name} " in result.stdout
    headings = [line[:-1] for line in result.stdout.splitlines() if line.endswith(":")]
    assert headings == ["serve", "talk", "measure", "prepare", "operate"]
    assert penstock("--version").stdout.startswith("penstock ")
    unknown = penstock("swerve")
    assert unknown.returncode == 2 and "no command 'swerve'; did you mean serve?" in unknown.stderr


def test_a_benchmark_must_be_chosen() -> None:
    result = penstock("bench")
    assert result.returncode == 2 and "throughput" in result.stderr


def test_without_a_command_it_is_the_launcher() -> None:
    for argv in (["--port", "http"], ["serve", "--port", "http"]):
        result = penstock(*argv)
        assert result.returncode == 2 and "launcher: error" in result.stderr
    for argv in (["--model-id", "/no/such"], ["serve", "/no/such", "--hostname", "127.0.0.1"]):
        result = penstock(*argv)
        assert result.returncode == 1 and "/no/such" in result.stdout


def test_commands_have_their_own_help() -> None:
    for argv, words in (
        (["bench", "--help"], "startup"),
        (["bench", "serve", "--help"], "--max-concurrency"),
        (["run-batch", "--help"], "--error-file"),
        (["quantize", "--help"], "--calibration"),
        (["download", "--help"], "penstock download"),
        (["migrate", "--help"], "TGI, vLLM or SGLang"),
    ):
        result = penstock(*argv)
        assert result.returncode == 0 and words in result.stdout
