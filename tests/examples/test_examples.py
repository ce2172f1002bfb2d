"""Each program of examples/ runs as it stands, before a server of the demo model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from penstock_launcher.migration.__main__ import migrate_text
from support.server import Server, running_server

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CHART = ROOT / "charts" / "penstock"
PARIS = "The capital of France is Paris."
# What each prints, and whether it is one of those that take longest.
PROGRAMS: dict[str, tuple[list[str], bool]] = {
    "chat.py": ([PARIS, "The capital of Italy is Rome."], False),
    "tgi_client.py": ([PARIS, "' capital'"], False),
    "structured.py": (["Paris ("], True),
    "tools.py": (["get_weather(", "sunny, 21 degrees"], True),
    "many.py": ([f"France: {PARIS}", "Norway: The capital of Norway is Oslo."], True),
    "program.py": ([f"{PARIS} (likeliest: Paris)"], False),
    "requests.sh": (["200", PARIS, "data: [DONE]", "`parameters.top_p`", "422"], False),
    "bench.sh": (["TTFT", "output tokens a second"], True),
}
SECONDS = 250


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server"), "--device", "cpu") as server:
        yield server


def run(command: list[str], folder: Path, *, codes: tuple[int, ...] = (0,), **env: str) -> str:
    """What it prints. Raises AssertionError where it ends with another code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert result.returncode in codes, f"{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.full] if slow else [])
        for name, (_, slow) in PROGRAMS.items()
    ],
)
def test_a_program(name: str, server: Server, tmp_path: Path) -> None:
    interpreter = sys.executable if name.endswith(".py") else "bash"
    # where the machine is busy, bench may find the second run slower, and says so
    codes = (0, 1) if name == "bench.sh" else (0,)
    env = {"PENSTOCK_URL": server.url, "PROMPTS": "4", "TOLERANCE": "10"}
    said = run([interpreter, str(EXAMPLES / name)], tmp_path, codes=codes, **env)
    for text in PROGRAMS[name][0]:
        assert text in said


@pytest.mark.full
def test_the_offline_program(tmp_path: Path) -> None:
    said = run([sys.executable, str(EXAMPLES / "offline.py")], tmp_path)
    assert PARIS in said and re.search(r"' Paris.': -\d\.\d\d, its own\n", said)


def test_the_file_of_requests(server: Server, tmp_path: Path) -> None:
    file, answers = str(EXAMPLES / "batch.jsonl"), tmp_path / "answers.jsonl"
    run(["penstock", "run-batch", "-i", file, "-o", str(answers), "--url", server.url], tmp_path)
    assert PARIS in answers.read_text() and len(answers.read_text().splitlines()) == 2


def test_the_compose_file_is_translated_without_loss() -> None:
    result = migrate_text((EXAMPLES / "tgi-compose.yml").read_text())
    assert result is not None and all(note.served for note in result.notes)
    service = yaml.safe_load(result.text)["services"]["chat"]
    assert service["image"] == "penstock:latest"
    assert service["command"][-2:] == ["--max-total-tokens", "8192"]


def test_the_values_are_taken_by_the_chart() -> None:
    helm = pytest.importorskip("helm_python", reason="Helm: pip install helm-python-sdk")
    values = yaml.safe_load((EXAMPLES / "values.yaml").read_text())
    chart = helm.Chart.load(str(CHART))
    chart.validate_schema(values)
    made = "\n".join(chart.render(values, name="chat", namespace="default").values())
    assert "haproxy" in made and values["model"]["id"] in made and "replicas: 2" in made


def test_every_example_is_run_and_listed() -> None:
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    others = {"offline.py", "batch.jsonl", "tgi-compose.yml", "values.yaml"}
    assert files == PROGRAMS.keys() | others
    page = (ROOT / "docs" / "examples.md").read_text()
    assert set(re.findall(r"^\| \[([^\]]+)\]", page, re.MULTILINE)) == files
