"""`make mutate`: removes each defence of the table in turn, from a copy of the repository, and runs
the test that must notice.

Ends with code 1 where a mutation survives: its test passes, or fails for want of being found. A
test that hangs has noticed, as it would have been red. Interrupted, it leaves nothing: files are
changed in the copy alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutations import bounded
from tests.mutations.mutation import Mutation
from tests.mutations.table import MUTATIONS

ROOT = Path(__file__).parents[2]
PACKAGES = ("proto", "launcher", "router", "shard", "kernels", "quantization", "client")
FAILED = 1  # pytest's code where tests ran and some did not pass
SECONDS = 60  # for one test; without its defence it may hang
START_SECONDS = 90  # to import, to start what the test needs and to end it
NOTICED = "noticed"
LATE = "Failed: Timeout"  # pytest-timeout's word for a test that it ended


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
        if not (ROOT / name).is_file():  # deleted and not yet committed, or a link to a folder
            continue
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    if (shared := ROOT.parent / "shared").exists():  # tests read real tokenizers there
        (folder / "shared").symlink_to(shared.resolve())
    return tree


def run(tree: Path, *tests: str, seconds: float = SECONDS + START_SECONDS) -> tuple[int, str]:
    """pytest's exit code and what it said, up to the first test that fails."""
    packages = os.pathsep.join(str(tree / package) for package in PACKAGES)
    command = [sys.executable, bounded.__file__, str(seconds)]
    command += [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["--timeout", str(SECONDS), "-m", "not gpu and not clients", *tests]
    environment = {**os.environ, "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait()
        finally:
            process.terminate()
            process.wait()
        output.seek(0)
        return code, output.read().decode(errors="replace")


def ending(tree: Path, mutation: Mutation) -> str:
    """What became of its test without the defence: `noticed`, or why nobody did."""
    path = tree / mutation.file
    before = path.read_text()
    path.write_text(before.replace(mutation.old, mutation.new))
    try:
        code, output = run(tree, mutation.test)
    finally:
        path.write_text(before)
    if code == bounded.HUNG or (code == FAILED and LATE in output):
        return NOTICED + ", as it hung"
    if code == FAILED:
        return NOTICED
    if code == 0:
        return "SURVIVES: its test passes"
    print(output[-2000:], flush=True)
    return f"SURVIVES: its test did not run (pytest's code {code})"


def pass_as_they_are(tree: Path, mutations: list[Mutation]) -> bool:
    tests = dict.fromkeys(mutation.test for mutation in mutations)
    code, output = run(tree, *tests, seconds=SECONDS * len(tests) + START_SECONDS)
    if code != 0:
        print(output[-2000:], flush=True)
    return code == 0


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ctrl-C: the copy goes, and the test
    rows = set(filter(None, given.only.split(",")))
    chosen = [mutation for mutation in MUTATIONS if not rows or mutation.row in rows]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="penstock-mutate-") as folder:
        tree = copy(Path(folder))
        print(f"{len(chosen)} mutations", flush=True)
        if not given.known_good and not pass_as_they_are(tree, chosen):
            print("the tests do not pass as they are")
            return 2
        for mutation in chosen:
            begun = time.monotonic()
            end = ending(tree, mutation)
            survivors += not end.startswith(NOTICED)
            edit = mutation.old.strip().partition("\n")[0][:70]
            seconds = time.monotonic() - begun
            print(f"{mutation.row:4} {mutation.file}: {edit}: {end} ({seconds:.0f} s)", flush=True)
    print(f"{survivors} of {len(chosen)} mutations survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
