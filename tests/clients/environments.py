"""Environments of other people's clients: one for each generation, made when first asked for.

They lie outside of the repository, in ~/.cache/penstock/clients, and are kept as long as their pins
stay the same. `python -m tests.clients.environments` makes all of them. Pins name everything that
is installed, and nothing is resolved or built: so no client brings a torch of its own along.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PINS = Path(__file__).parent / "environments"
NODE = "node"  # the folder with package.json; the others are requirements files
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock" / "clients"
SECONDS = 900.0


class Unavailable(Exception):
    """The environment cannot be made here; the message says why."""


def names() -> list[str]:
    """All environments."""
    return sorted([path.stem for path in PINS.glob("*.txt")] + [NODE])


def interpreter(name: str) -> Path:
    """The interpreter of an environment, which is made if need be. Raises Unavailable."""
    if name == NODE:
        node = shutil.which("node")
        if node is None or shutil.which("npm") is None:
            raise Unavailable("node or npm is missing")
        return Path(node)
    return folder(name) / "bin" / "python"


def folder(name: str) -> Path:
    """The folder of an environment, which is made if need be. Raises Unavailable."""
    place = CACHE / f"{name}-{_fingerprint(name)}"
    done = place / "complete"
    with _locked(CACHE / f"{place.name}.lock"):
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            (_make_node if name == NODE else _make_python)(name, place)
            done.touch()
    return place


def _make_python(name: str, place: Path) -> None:
    venv.create(place, with_pip=False, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"))
    options = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-compile")
    install = ("install", "--no-deps", "--only-binary", ":all:", "-r", str(PINS / f"{name}.txt"))
    _run(*pip, *install, *options)


def _make_node(name: str, place: Path) -> None:
    shutil.copytree(PINS / name, place)
    _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or error.stdout).strip().rsplit("\n", 1)[-1]
        raise Unavailable(f"{command[0]} failed: {reason}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took more than {SECONDS:.0f} s") from None


def _fingerprint(name: str) -> str:
    """Changes with the pins and with the Python that installs them."""
    source = PINS / (f"{name}/package-lock.json" if name == NODE else f"{name}.txt")
    return hashlib.sha256(source.read_bytes() + sys.version.encode()).hexdigest()[:12]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for environment in sys.argv[1:] or names():
        try:
            print(environment, folder(environment), flush=True)
        except Unavailable as error:
            print(environment, error, file=sys.stderr)
