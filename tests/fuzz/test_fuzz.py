"""The corpus, and a few inputs that nobody has seen: the short form of `make fuzz`."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz.mutate import mutated, mutated_json
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import CORPUS, _fault, _inputs, known

ROOT = Path(__file__).parent.parent.parent
ROUNDS = 25
# makes a model first
SLOW = {"shard": pytest.mark.full}
NAMES = [pytest.param(name, marks=SLOW.get(name, ())) for name in TARGETS]


@pytest.mark.timeout(1200)  # each imports all that it needs, on a machine that may be busy
@pytest.mark.parametrize("name", NAMES)
def test_inputs_end_as_they_may(name: str) -> None:
    """In a process of its own, as `make fuzz` runs it: what is found there comes here."""
    command = [sys.executable, "-m", "tests.fuzz", name, "--rounds", str(ROUNDS)]
    command += ["--seed", "1", "--seconds", "600"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert f"{name}: " in result.stdout and "0 findings" in result.stdout


def test_every_finding_is_of_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= TARGETS.keys()


@pytest.mark.parametrize("mutate", [mutated, mutated_json])
def test_inputs_follow_from_their_seed(mutate: object) -> None:
    target = Target([b'{"a": [1, 2]}', b"xyz"], lambda data: None, mutate=mutate)  # type: ignore[arg-type]
    first, again = ([*_inputs(target, "none", 200, 7)] for _ in range(2))
    assert first == again and len(set(first)) > 100
    assert [*_inputs(target, "none", 200, 8)] != first


def test_what_is_not_typed_is_a_finding() -> None:
    def run(data: bytes) -> None:
        raise ValueError if data == b"typed" else KeyError(data)

    target = Target([], run, (ValueError,))
    assert _fault(target, b"typed") is None
    where, text = _fault(target, b"other") or ("", "")
    assert "KeyError at" in where and "other" in text
    assert random.Random(1).random() == random.Random(1).random() and not known("none")


def test_a_crash_and_an_endless_input_are_findings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Seen from outside: SIGSEGV, and SIGPROF behind too much of the processor's time."""
    from tests.fuzz import __main__ as command

    kept: list[bytes] = []
    monkeypatch.setattr(command, "keep", lambda name, data: kept.append(data) or tmp_path / "x")
    deaths = iter((-11, -27, 0))

    def die(arguments: list[str], **rest: object) -> subprocess.CompletedProcess[bytes]:
        Path(arguments[arguments.index("--current") + 1]).write_bytes(b"input")
        return subprocess.CompletedProcess(arguments, next(deaths))

    monkeypatch.setattr(command.subprocess, "run", die)
    assert not command._clean("http", 60, 5, 1)
    assert kept == [b"input"] * 2
    said = capsys.readouterr().out
    assert "ended by SIGSEGV" in said and "ended by SIGPROF" in said
