"""Kernels of sampling are all compiled at start: later a request would wait a second for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("how", ["graphs", "eager"])
@pytest.mark.parametrize("slots", [64, 17])
def test_sampling_compiles_nothing_while_serving(slots: int, how: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path])
    process = subprocess.run(
        [sys.executable, "-m", "support.late_compiles", str(slots), how],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == []
