"""`text-generation-server download-weights`, as an init container runs it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.small_hub import SHA, Hub, running_hub


@pytest.fixture(scope="module")
def hub():
    with running_hub() as url:
        yield url


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if not n.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "penstock_launcher.server_command", *argv],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_it_fetched_is_there_without_the_hub(hub: str, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path)}
    flags = ["--revision", "main", "--extension", ".safetensors", "--auto-convert"]
    result = run("download-weights", "org/good", *flags, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "the model is complete" in result.stdout and SHA in result.stdout
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    again = run("download-weights", "org/good", **offline)
    assert again.returncode == 0 and SHA in again.stdout
    assert run("download-weights", "org/other", **offline).returncode == 1


def test_an_interrupt_ends_it_at_once(hub: str, tmp_path: Path, monkeypatch) -> None:
    """The file that is being sent never ends."""
    asked, may_end = threading.Event(), threading.Event()
    send = Hub.answer_file

    def answer_file(self, repository, revision, name):
        if name == "model.safetensors" and self.command == "GET":
            asked.set()
            may_end.wait(120)
        send(self, repository, revision, name)

    monkeypatch.setattr(Hub, "answer_file", answer_file)
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "penstock_launcher.download_command", "org/good"]
    with subprocess.Popen(
        command,
        env={n: v for n, v in os.environ.items() if not n.startswith("HF_")} | environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert asked.wait(120)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and "interrupted; the same command goes on" in said
    may_end.set()


def test_a_folder_is_looked_at(tmp_path: Path) -> None:
    assert run("download-weights", str(tmp_path)).returncode == 1
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert run("download-weights", str(tmp_path)).returncode == 0


@pytest.mark.parametrize("argv", [["serve", "org/name"], ["quantize"], [], ["download-weights"]])
def test_other_commands_are_refused(argv: list[str]) -> None:
    result = run(*argv)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    if argv and argv[0] == "serve":
        assert "launcher --model-id" in result.stderr
