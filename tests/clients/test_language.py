"""Programs of the language: SGLang's own frontend and `penstock.lang` agree on this server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.clients.environments import Unavailable
from tests.clients.programs import lang_programs
from tests.clients.test_programs import SECONDS, command, variables

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
