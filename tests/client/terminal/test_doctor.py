"""`penstock doctor`: facts, warnings with advice, and no secrets."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from penstock.terminal import doctor
from penstock.terminal.doctor import Finding

SECRETS = {"HF_TOKEN": "hf_1", "API_KEY": "sk-2", "AWS_SECRET_ACCESS_KEY": "aws3"}


def found(subject: str, environ: dict[str, str] | None = None, port: int = 1) -> Finding:
    findings = doctor.examine(port, environ or {}, ask_hub=bool(environ))
    return next(one for one in findings if one.subject.startswith(subject))


def test_secrets_are_named_and_not_shown() -> None:
    environ = {**SECRETS, "HF_HOME": "/tmp", "HF_HUB_OFFLINE": "1", "PATH": "/nobody/asks"}
    what = found("environment", environ).what
    assert all(name in what for name in SECRETS) and "HF_HOME=/tmp" in what
    assert not any(secret in what for secret in (*SECRETS.values(), "/nobody/asks"))


def test_passwords_in_urls_are_not_shown() -> None:
    environ = {"HF_ENDPOINT": "http://user:hunter22@127.0.0.1:1"}
    for subject in ("environment", "hub"):
        what = found(subject, environ).what
        assert "hunter22" not in what and "//***@127.0.0.1:1" in what


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = found("port", port=port)
        assert finding.level == "warning" and str(port) in finding.what and finding.advice
    assert found("port", port=port).level == "ok"


def test_a_hub_that_cannot_be_reached() -> None:
    finding = found("hub", {"HF_ENDPOINT": "http://127.0.0.1:1"})
    assert (
        finding.level == "warning" and "127.0.0.1:1" in finding.what and "proxy" in finding.advice
    )
    assert found("hub", {"HF_HUB_OFFLINE": "1"}).level == "ok"


@pytest.mark.parametrize(
    ("script", "level", "text"),
    [
        ("echo 'NVIDIA H200, 580.1, 4, 143771'", "ok", "NVIDIA H200, driver 580.1"),
        ("echo 'NVIDIA H200, 580.1, 90000, 143771'", "warning", "90000 of 143771"),
        ("echo 'has failed because it could not talk'; exit 9", "failure", "could not talk"),
    ],
)
def test_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, level: str, text: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    finding = found("GPU")
    assert finding.level == level and text in finding.what
    assert bool(finding.advice) == (level != "ok")


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert doctor.main(["--offline", "--port", "1"]) == 0
    assert "→" in capsys.readouterr().out  # here is no GPU, at least
    doctor.main(["--offline", "--json"])
    subjects = {one["subject"] for one in json.loads(capsys.readouterr().out)}
    assert {"system", "python", "packages", "memory", "port", "model cache"} <= subjects
