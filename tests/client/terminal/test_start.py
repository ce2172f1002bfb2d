"""Servers started as vLLM's and SGLang's users do, on their ports and with their flags."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import penstock_launcher.model
from penstock.terminal import start

DEMO = penstock_launcher.model.DEMO


@pytest.mark.parametrize(
    ("argv", "added"),
    [
        ([], ["--port=8000", "--host=::1"]),
        (["--port", "1"], ["--host=::1"]),
        (["--port=1", "--host=::"], []),
        (["-p", "1", "--hostname", "::"], []),
        (["--uds", "/s"], ["--port=8000"]),
    ],
)
def test_defaults_give_way(
    argv: list[str], added: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr(start, "become", lambda *given: said.append(given))
    start.start(argv, {"--port": "8000", "--host": "::1"})
    assert said == [("penstock_launcher", [*added, *argv])]


def test_defaults_give_way_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("port: 1\n")
    said: list[object] = []
    monkeypatch.setattr(start, "become", lambda *given: said.append(given))
    start.start([f"--config={path}"], {"--port": "8000", "--host": "::1"})
    assert said == [("penstock_launcher", ["--host=::1", f"--config={path}"])]


@pytest.mark.parametrize(
    ("module", "port"),
    [("penstock.entrypoints.openai.api_server", 8000), ("penstock.launch_server", 30000)],
)
def test_ports_are_those_of_their_users(module: str, port: int) -> None:
    """--prometheus-port of the same number is refused by a sentence with the port."""
    argv = ["--prometheus-port", str(port)]
    result = subprocess.run(
        [sys.executable, "-m", module, *argv], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1 and f"serves /metrics too: {port}" in result.stdout


def test_a_server_by_sglangs_command_line(tmp_path: Path) -> None:
    argv = [
        "--model-path", str(DEMO), "--port", "0", "--tp", "1", "--mem-fraction-static", "0.85",
        "--context-length", "128", "--enable-radix-cache", "--max-running-requests", "4",
        "--device", "cpu", "--shard-uds-path", str(tmp_path / "run"),
    ]  # fmt: skip
    environ = {**os.environ, "HOSTNAME": "0.0.0.0"}
    with subprocess.Popen(
        [sys.executable, "-m", "penstock.launch_server", *argv],
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    ) as process:
        try:
            assert process.stdout is not None
            ready = next(line for line in process.stdout if "Penstock ready" in line)
            url = re.search(r"http://127\.0\.0\.1:\d+", ready)
            assert url is not None, "SGLang's default: this machine alone"
            with urllib.request.urlopen(f"{url[0]}/info", timeout=30) as answer:
                info = json.load(answer)
            assert (info["max_total_tokens"], info["max_batch_size"]) == (128, 4)
        finally:
            process.send_signal(signal.SIGTERM)
            for _ in process.stdout or ():
                pass
            assert process.wait(60) == 0
