"""What images install is locked by hashes, and is what was tested."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# torch asks for its own, and the tests' interpreter of kernels for another
APART = {"triton"}


PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))]
PROGRAMS = sorted(
    {m for p in PAGES for m in re.findall(r"-m (tests\.\w+)", (ROOT / p).read_text())}
)
# What `make serve` does not install, by the names that are imported.
TESTS_ALONE = ("psutil", "pytest", "hypothesis", "cryptography", "schemathesis", "transformers")
WITHOUT = """import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv[2:]))
module, sys.argv[1:] = sys.argv[1], ["--help"]
runpy.run_module(module, run_name="__main__")
"""


def pins(name: str) -> dict[str, str]:
    """Package, in the normal form of its name, and version."""
    found = re.findall(r"^([\w.-]+)==([^\s\\;]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def test_L8_every_package_has_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins("requirements.lock")) > 40
    for entry in entries:
        first, *hashes = [line.strip(" \\") for line in entry.splitlines()]
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", h) for h in hashes), first


def test_L8_versions_are_those_of_the_tests() -> None:
    locked, tested = pins("requirements.lock"), pins("constraints.txt")
    both = locked.keys() & tested.keys() - APART
    assert len(both) > 30
    assert {name: locked[name] for name in both} == {name: tested[name] for name in both}


def test_L8_nothing_that_serving_needs_is_missing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["shard"], *extras["s3"], *extras["otlp"]]
    names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", one)[0]).lower() for one in needed}  # type: ignore[index]
    assert names <= pins("requirements.lock").keys()


@pytest.mark.parametrize("module", PROGRAMS)
def test_programs_that_pages_start_by_hand_need_no_package_of_the_tests(module: str) -> None:
    """Others are started by make, which installs what they need."""
    argv = [sys.executable, "-c", WITHOUT, module, *TESTS_ALONE]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
