"""Cleans up after a launcher, however that ends. Run by path, with one argument: the folder.

Standard input is a pipe whose other end only the launcher holds. The launcher writes `+<group>`
for each process group it starts and `-<group>` when that group is gone; the end of the pipe means
that the launcher is gone, by intention or by SIGKILL. Then what is left of the groups is killed
and the folder is removed. Imports nothing of ours, so that it starts in some 10 ms and stays small.
"""

import contextlib
import os
import shutil
import signal
import sys


def main(folder: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        groups.add(group) if line[0] == "+" else groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
