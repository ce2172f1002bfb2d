"""Other people's clients, unmodified, each with a small program in its own environment.

Most environments have to be installed first, which takes minutes and a network: those tests are
marked `clients` and run by `make test-clients`. Where an environment cannot be made they skip.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.clients.environments import NODE, Unavailable, folder, interpreter

import penstock_launcher
from support.server import Server

PROGRAMS = Path(__file__).parent / "programs"
OURS = "ours"  # what the project itself has installed
SECONDS = 900
CLIENTS = (
    (OURS, "openai_client.py"),
    (OURS, "responses_client.py"),
    (OURS, "hub_client.py"),
    ("hub-0.23", "hub_client.py"),
    ("hub-0.25", "hub_client.py"),
    ("hub-0.30", "hub_client.py"),
    ("hub-0.36", "hub_client.py"),
    ("hub-2", "hub_client.py"),
    ("text-generation-0.6", "tgi_client.py"),
    ("text-generation-0.7", "tgi_client.py"),
    ("llama-index", "llama_index_client.py"),
    ("litellm", "litellm_client.py"),
    ("guidellm", "guidellm_client.py"),
    ("lm-eval", "lm_eval_client.py"),
    ("anthropic", "anthropic_client.py"),
    ("instructor", "instructor_client.py"),
    ("langchain-openai", "langchain_client.py"),
    ("sglang-0.4", "sglang_client.py"),
    ("sglang-0.5", "sglang_client.py"),
    (NODE, "npm_openai.mjs"),
    (NODE, "npm_huggingface.mjs"),
    (NODE, "npm_ai.mjs"),
)


def variables() -> dict[str, str]:
    """The environment of a program: where it finds the served model's tokenizer, and torch."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None
    return {
        **os.environ,
        "MODEL": str(Path(penstock_launcher.__file__).parent / "demo_model"),
        "TORCH_FROM": str(Path(torch.origin).parents[1]),
    }


def parameters() -> list[object]:
    """One test a client; those that must be installed first are marked."""
    return [
        pytest.param(
            environment,
            program,
            id=f"{environment}-{program}",
            marks=() if environment == OURS else (pytest.mark.clients, pytest.mark.timeout(1200)),
        )
        for environment, program in CLIENTS
    ]


def command(environment: str, program: str, url: str) -> list[str]:
    """How a program is started. Raises Unavailable."""
    if environment == OURS:
        return [sys.executable, str(PROGRAMS / program), url]
    command = [str(interpreter(environment)), str(PROGRAMS / program), url]
    return [*command, str(folder(environment))] if environment == NODE else command


@pytest.mark.parametrize(("environment", "program"), parameters())
def test_a_client_works(server: Server, tmp_path: Path, environment: str, program: str) -> None:
    try:
        start = command(environment, program, server.url)
    except Unavailable as error:
        pytest.skip(str(error))
    result = subprocess.run(
        start, env=variables(), cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
    )
    assert result.returncode == 0, result.stderr
    verdict = json.loads(result.stdout.strip().rsplit("\n", 1)[-1])
    assert verdict["checks"], "nothing was checked"
    failed = [f"{check}: {what}" for check, what in verdict["checks"].items() if what is not None]
    assert not failed, "\n".join([verdict["client"], *failed])
