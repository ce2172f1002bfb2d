"""Products that a kernel's loop leaves running into its next turn, in Triton's GPU dialect.

Where the left side is in registers this must not be: `penstock_kernels.gpu.products.settled`.
"""

from __future__ import annotations

import re

_LOOP = re.compile(r"( *)(?:%\S+ = )?scf\.(?:for|while) ")
_DOT = re.compile(r"ttng\.warp_group_dot .*isAsync = true.*? : (tensor|!ttg\.memdesc)<")
_WAIT = re.compile(r"ttng\.warp_group_dot_wait .*pendings = (\d+)")


def left_running(ttgir: str) -> list[str]:
    """Lines of products from registers that a turn of their loop leaves to the next one, whose
    first wait is not for all. Until a wait, of whatever count, the assembler keeps registers."""
    lines = ttgir.splitlines()
    found = []
    for first, last in _loops(lines):
        body = lines[first + 1 : last]
        waits = [wait[1] for line in body if (wait := _WAIT.search(line))]
        pending: list[str] = []
        waited = False  # behind one that is pending
        for line in body:
            if wait := _WAIT.search(line):
                pending, waited = ([], False) if wait[1] == "0" else (pending, bool(pending))
            elif (dot := _DOT.search(line)) and dot[1] == "tensor":
                pending.append(line.strip())
        found += pending if waited or waits[:1] != ["0"] else []
    return found


def _loops(lines: list[str]) -> list[tuple[int, int]]:
    """First and last line of each."""
    found = []
    for first, line in enumerate(lines):
        if loop := _LOOP.match(line):
            end = loop[1] + "}"
            last = next(i for i in range(first + 1, len(lines)) if lines[i].startswith(end))
            found.append((first, last))
    return found
