"""`penstock doctor`: facts, warnings with advice, and no secrets."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from penstock.terminal import doctor, gpus
from penstock.terminal.finding import Finding

SECRETS = {"HF_TOKEN": "hf_1", "API_KEY": "sk-2", "AWS_SECRET_ACCESS_KEY": "aws3"}


def found(subject: str, environ: dict[str, str] | None = None, port: int = 1) -> Finding:
    findings = doctor.examine(port, environ or {}, ask_hub=bool(environ))
    return next(one for one in findings if one.subject.startswith(subject))


def told(environ: dict[str, str]) -> dict[str, Finding]:
    """Of each variable what is said of it."""
    findings = doctor.examine(1, environ, ask_hub=False)
    return {one.what.partition("=")[0]: one for one in findings if one.subject == "variable"}


def test_secrets_are_named_and_not_shown() -> None:
    environ = {**SECRETS, "HF_HOME": "/tmp", "HF_HUB_OFFLINE": "1", "PATH": "/nobody/asks"}
    what = " ".join(one.what for one in doctor.examine(1, environ, ask_hub=False))
    assert all(f"{name}=(set, not shown)" in what for name in SECRETS) and "HF_HOME=/tmp" in what
    assert not any(secret in what for secret in (*SECRETS.values(), "/nobody/asks"))


# What a user of TGI may have set: variable, value, how grave, and what is said.
OF_TGI = [
    ("MODEL_ID", "org/name", "ok", "MODEL_ID=org/name sets --model-id"),
    ("QUANTIZE", "awq", "ok", "sets --quantize"),
    ("QUANTIZE", "awk", "failure", "must be one of"),
    ("NUM_SHARD", "2", "ok", "sets --num-shard"),
    ("PORT", "80", "ok", "PORT=80 sets --port"),
    ("PORT", "80x", "failure", "PORT=80x must be a whole number from 0 to 65535"),
    ("MAX_INPUT_TOKENS", "2048", "ok", "MAX_INPUT_TOKENS=2048 sets --max-input-tokens"),
    ("MAX_TOTAL_TOKENS", "4096", "ok", "sets --max-total-tokens"),
    ("HOSTNAME", "0f3a", "ok", "using 0.0.0.0"),
    ("PROMETHEUS_PORT", "tcp://10.0.0.1:9090", "ok", "Kubernetes makes it for a service"),
    ("HUGGING_FACE_HUB_TOKEN", "hf_secret", "ok", "(set, not shown) is the token for models"),
    ("HF_TOKEN", "hf_secret", "ok", "(set, not shown) is the token for models"),
    ("API_KEY", "sk-secret", "ok", "(set, not shown) sets --api-key"),
    ("AIP_HTTP_PORT", "8081", "ok", "sets --port"),
    ("USAGE_STATS", "off", "ok", "asks for what is done anyway"),
    ("LORA_ADAPTERS", "a/b", "failure", "is not built yet: adapters cannot be loaded"),
    ("ATTENTION", "flashinfer", "warning", "is TGI's and has no effect here"),
]


@pytest.mark.parametrize(("name", "value", "level", "said"), OF_TGI)
def test_variables_of_tgi_are_named_with_what_they_set(
    name: str, value: str, level: str, said: str
) -> None:
    finding = told({name: value})[name]
    assert finding.level == level and said in finding.what
    assert "secret" not in finding.what
    assert bool(finding.advice) == (level != "ok")


def test_variables_that_say_the_same_twice() -> None:
    both = told({"MODEL_ID": "a/b", "TGI_MODEL_ID": "c/d"})["MODEL_ID"]
    assert both.level == "failure" and "contradict each other" in both.what
    ports = told({"PORT": "80", "AIP_HTTP_PORT": "8080"})
    assert "gives way to AIP_HTTP_PORT" in ports["PORT"].what
    tokens = told({"HF_TOKEN": "a", "HUGGING_FACE_HUB_TOKEN": "b"})
    assert "gives way" in tokens["HUGGING_FACE_HUB_TOKEN"].what


def test_the_port_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "0")
    doctor.main(["--offline"])
    assert "0 is free" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("torch", "level", "text"),
    [
        ({"cuda": "13.0", "count": 2}, "ok", "torch for CUDA 13.0 finds 2"),
        ({"cuda": None, "count": 0}, "failure", "built for CPUs alone"),
        ({"cuda": "13.0", "count": 0, "said": "too old"}, "failure", "finds none: too old"),
    ],
)
def test_what_torch_finds(
    monkeypatch: pytest.MonkeyPatch, torch: dict[str, object], level: str, text: str
) -> None:
    told = json.dumps({"hip": None, "said": "", **torch})
    monkeypatch.setattr(gpus, "TORCH", f"print({told!r})")
    [finding] = gpus.torch_view()
    assert finding.level == level and text in finding.what
    assert bool(finding.advice) == (level != "ok")


def test_the_torch_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked as it is, in a process of its own; one that is missing is no finding here."""
    [finding] = gpus.torch_view()
    assert finding.level in ("ok", "failure") and "torch" in finding.what
    monkeypatch.setattr(gpus, "TORCH", "import no_such_module")
    assert list(gpus.torch_view()) == []


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert doctor.main(["--offline", "--port", "1"]) == 0
    assert "→" in capsys.readouterr().out  # here is no GPU, at least
    doctor.main(["--offline", "--json"])
    subjects = {one["subject"] for one in json.loads(capsys.readouterr().out)}
    assert {"system", "python", "packages", "memory", "port", "model cache"} <= subjects
