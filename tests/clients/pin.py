"""Pins an environment anew: `python -m tests.clients.pin NAME`.

The first line of its requirements file says what is wanted, as pip takes it. pip finds the versions
that go together, without installing anything; torch and what belongs to it is left out. Lines that
begin with `# alone: ` name packages that are wanted without what they say they need.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clients.environments import PINS

WANTED = "# wanted: "
ALONE = "# alone: "
LEFT_OUT = re.compile(r"torch|triton|nvidia-.*|cuda-.*|setuptools", re.IGNORECASE)


def pin(name: str) -> None:
    """Rewrite the requirements file of an environment."""
    path = PINS / f"{name}.txt"
    first, *others = path.read_text().splitlines()
    alone = [line for line in others if line.startswith(ALONE)]
    if not first.startswith(WANTED):
        raise ValueError(f"{path}: the first line must begin with {WANTED!r}")
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([*command, *shlex.split(first.removeprefix(WANTED))], check=True)
        items = json.loads(report.read_text())["install"]
    wheels = [item for item in items if item["download_info"]["url"].endswith(".whl")]
    found = [item["metadata"] for item in wheels]
    pins = {m["name"].lower(): f"{m['name']}=={m['version']}" for m in found}
    kept = [pins[key] for key in sorted(pins) if not LEFT_OUT.fullmatch(key)]
    kept += [line.removeprefix(ALONE) for line in alone]
    path.write_text("\n".join([first, *alone, *kept]) + "\n")


if __name__ == "__main__":
    for environment in sys.argv[1:]:
        pin(environment)
