"""`make mutate`: removes each defence of the table in turn, from a copy of the repository, and runs
the test that must notice.

Ends with code 1 where a mutation survives: its test passes, or fails for want of being found.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutations.mutation import Mutation
from tests.mutations.table import MUTATIONS

ROOT = Path(__file__).parents[2]
PACKAGES = ("proto", "launcher", "router", "shard", "kernels", "quantization", "client")
FAILED = 1  # pytest's code where tests ran and some did not pass
SECONDS = 60  # for one test; without its defence it may hang


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("--only", default="", help="rows of docs/reliability.md, as F1,S20")
    parser.add_argument(
        "--known-good", action="store_true", help="do not run the tests without mutations first"
    )
    return parser.parse_args()


def copy(folder: Path) -> Path:
    """The files that git knows, and those that it would take, in a folder of their own."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    tree = folder / "tree"
    for name in filter(None, names.split("\0")):
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    if (shared := ROOT.parent / "shared").exists():  # tests read real tokenizers there
        (folder / "shared").symlink_to(shared.resolve())
    return tree


def run(tree: Path, *tests: str, shown: tuple[int, ...] = (0, FAILED)) -> int:
    """pytest's exit code. What it prints is shown where that is none of those."""
    packages = os.pathsep.join(str(tree / package) for package in PACKAGES)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["--timeout", str(SECONDS), "-m", "not gpu and not clients", *tests]
    environment = {**os.environ, "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if result.returncode not in shown:
        print(result.stdout[-2000:], result.stderr[-2000:], flush=True)
    return result.returncode


def survives(tree: Path, mutation: Mutation) -> str:
    """Why nobody noticed; empty: the test did."""
    path = tree / mutation.file
    before = path.read_text()
    path.write_text(before.replace(mutation.old, mutation.new))
    try:
        code = run(tree, mutation.test)
    finally:
        path.write_text(before)
    if code == FAILED:
        return ""
    return "its test passes" if code == 0 else f"its test did not run (pytest's code {code})"


def main() -> int:
    given = arguments()
    rows = set(filter(None, given.only.split(",")))
    chosen = [mutation for mutation in MUTATIONS if not rows or mutation.row in rows]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="penstock-mutate-") as folder:
        tree = copy(Path(folder))
        print(f"{len(chosen)} mutations", flush=True)
        if not given.known_good and run(
            tree, *dict.fromkeys(mutation.test for mutation in chosen), shown=(0,)
        ):
            print("the tests do not pass as they are")
            return 2
        for mutation in chosen:
            begun = time.monotonic()
            reason = survives(tree, mutation)
            survivors += bool(reason)
            edit = mutation.old.strip().partition("\n")[0][:70]
            end = f"SURVIVES: {reason}" if reason else "noticed"
            seconds = time.monotonic() - begun
            print(f"{mutation.row:4} {mutation.file}: {edit}: {end} ({seconds:.0f} s)", flush=True)
    print(f"{survivors} of {len(chosen)} mutations survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
