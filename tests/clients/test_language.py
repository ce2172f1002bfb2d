"""Programs of the language: SGLang's own frontend and `penstock.lang` agree on this server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.clients.environments import Unavailable
from tests.clients.programs import lang_programs
from tests.clients.test_programs import SECONDS, command, variables

import penstock
import penstock.lang as sgl
from support.server import Server


@pytest.mark.clients
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("environment", ["sglang-0.4", "sglang-0.5"])
def test_sglangs_frontend_agrees(server: Server, tmp_path: Path, environment: str) -> None:
    try:
        start = command(environment, "sglang_lang_programs.py", server.url)
    except Unavailable as error:
        pytest.skip(str(error))
    result = subprocess.run(
        start, env=variables(), cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
    )
    assert result.returncode == 0, result.stderr
    theirs: dict[str, Any] = json.loads(result.stdout.strip().rsplit("\n", 1)[-1])
    sgl.set_default_backend(sgl.RuntimeEndpoint(server.url))
    ours = {name: program(sgl) for name, program in lang_programs.PROGRAMS.items()}
    assert theirs == json.loads(json.dumps(ours))


@pytest.mark.clients
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("environment", ["anthropic", "litellm"])
def test_other_backends(server: Server, tmp_path: Path, environment: str) -> None:
    """`penstock.lang` in the environment of another package, without what Penstock installs."""
    try:
        start = command(environment, f"lang_{environment}_client.py", server.url)
    except Unavailable as error:
        pytest.skip(str(error))
    about = tmp_path / f"penstock-{penstock.__version__}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: penstock\nVersion: {penstock.__version__}\n")
    path = os.pathsep.join([str(Path(penstock.__file__).parents[1]), str(tmp_path)])
    environ = variables() | {"PYTHONPATH": path}
    result = subprocess.run(
        start, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS
    )
    assert result.returncode == 0, result.stderr
    checks = json.loads(result.stdout.strip().rsplit("\n", 1)[-1])["checks"]
    assert checks and not {name: what for name, what in checks.items() if what is not None}
