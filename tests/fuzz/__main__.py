"""`python -m tests.fuzz`: hostile inputs for everything that reads what others wrote.

Each target runs in a process of its own, from its seeds and its corpus (`tests/fuzz/corpus`). What
ends in anything but a typed error, within bounds of time and memory, is a finding: it is written to
the corpus, where it stays as a test, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
for place in (ROOT, ROOT / "tests"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from tests.fuzz.targets import TARGETS  # noqa: E402
from tests.fuzz.worker import keep, work  # noqa: E402

GRACE_SECONDS = 900.0  # for a worker to start and to end


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    add("--seconds", type=float, default=60.0, help="a target (60)")
    add("--rounds", type=int, default=10**9, help="changed inputs a target, at most")
    add("--seed", type=int, default=None, help="of what is changed; else another each time")
    add("--current", type=Path, help=argparse.SUPPRESS)  # a worker's
    given = parser.parse_args()
    if unknown := set(given.targets) - TARGETS.keys():
        parser.error(f"there are no targets {', '.join(sorted(unknown))}")
    return given


def main() -> int:
    given = arguments()
    seed = time.time_ns() if given.seed is None else given.seed
    names = given.targets or list(TARGETS)
    if given.current is not None:
        return work(names[0], given.seconds, given.rounds, seed, given.current) > 0
    failed = [name for name in names if not _clean(name, given.seconds, given.rounds, seed)]
    print(f"findings: {', '.join(failed)}" if failed else "no findings")
    return bool(failed)


def _clean(name: str, seconds: float, rounds: int, seed: int) -> bool:
    """Run one target, as often as it dies. False where anything was found."""
    clean, ends = True, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        current = Path(folder) / "current"
        while (left := ends - time.monotonic()) > 0 or clean:
            command = [sys.executable, "-m", "tests.fuzz", name, "--current", str(current)]
            command += ["--seconds", str(left), "--rounds", str(rounds), "--seed", str(seed)]
            try:
                code = subprocess.run(command, cwd=ROOT, timeout=left + GRACE_SECONDS).returncode
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
            if code in (0, 1):
                return clean and code == 0
            data = current.read_bytes() if current.exists() else b""
            how = signal.Signals(-code).name if code < 0 else f"code {code}"
            print(f"{name}: ended by {how}: {keep(name, data)}", flush=True)
            clean, seed = False, seed + 1
            if not current.exists():
                break
    return False


if __name__ == "__main__":
    sys.exit(main())
