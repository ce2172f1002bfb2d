"""The wheel in fresh environments: alone it talks to servers, with `all` it serves models."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 900.0
pytestmark = [pytest.mark.full, pytest.mark.timeout(int(2 * SECONDS))]
OPTIONAL = ("penstock.lang", "penstock.bench")  # parts that must need nothing more


def run(*command: object, **options: object) -> str:
    """What it prints. It must end well."""
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=SECONDS, **options
    )  # type: ignore[call-overload]
    assert result.returncode == 0, result.stdout + result.stderr
    return str(result.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    [path] = folder.glob("penstock-*.whl")
    return path


def environment(folder: Path, wheel: Path, extra: str) -> Path:
    """A fresh one with the wheel; its interpreter."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pins = ("-c", ROOT / "constraints.txt")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q")
    run(*pip, *pins, f"{wheel}{extra}")
    return python


def clean(folder: Path) -> dict[str, object]:
    """Options for a program that must not find the checkout."""
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {"cwd": folder, "env": variables}


def test_alone(tmp_path: Path, wheel: Path) -> None:
    python = environment(tmp_path / "env", wheel, "")
    code = (
        "import importlib.util, penstock, sys\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "print(penstock.__version__, penstock.__file__)\n"
        "from penstock import SamplingParams, LLM, AsyncLLM, ServerError\n"
        f"for name in {OPTIONAL}:\n"
        "    if importlib.util.find_spec(name): __import__(name)\n"
        "import penstock.lang as sgl\n"
        "try: sgl.OpenAI('http://127.0.0.1:9/v1')\n"
        "except sgl.BackendError: pass\n"
        "else: raise AssertionError('nobody listens there')\n"
        "try: LLM(quiet=True)\n"
        "except ServerError as error: assert \"pip install 'penstock[all]'\" in str(error), error\n"
        "else: raise AssertionError('it served')\n"
    )
    said = run(python, "-c", code, **clean(tmp_path))
    assert str(tmp_path) in said
    assert "usage" in run(python, "-m", "penstock_launcher", "--help", **clean(tmp_path)).lower()


def test_with_everything(tmp_path: Path, wheel: Path) -> None:
    python = environment(tmp_path / "env", wheel, "[all]")
    code = (
        "from penstock import LLM, SamplingParams\n"
        "with LLM(quiet=True, device='cpu') as llm:\n"
        "    [output] = llm.generate('What is the capital of France?', "
        "SamplingParams(temperature=0), use_tqdm=False)\n"
        "    print(output.outputs[0].text)\n"
    )
    assert "Paris" in run(python, "-c", code, **clean(tmp_path))
