"""Children that were stopped: by SIGSTOP, a debugger or job control. They live, but say nothing.

The kernel says so in /proc, whatever the child was doing: a child that loads, an idle shard and a
router look alike. A busy one is never taken for a stopped one, however slow the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from penstock_launcher.child import Child
from penstock_launcher.errors import LauncherError
from penstock_launcher.logs import Log
from penstock_launcher.outside import stacks_of

LOOK = 1.0  # seconds between two looks
NOTICE = 2  # looks, so that a tool that stops a process for a moment causes no line
REMIND = 30  # looks between two lines about the same child
LIMIT = 300  # looks; then the group ends, as nobody has let the child go on


async def watch_stopped(children: Callable[[], Iterable[Child]], log: Log) -> None:
    """Say which children are stopped, as long as they are.

    Raises LauncherError when one stays so. Looks are counted, not seconds: those in which the
    launcher was stopped itself do not count.
    """
    looks: dict[Child, int] = {}
    while True:
        await asyncio.sleep(LOOK)
        before, looks = looks, {}
        for child in children():
            count = before.get(child, 0)
            if _is_stopped(child.group):
                looks[child] = count + 1
                _say(child, count + 1, log)
                if count + 1 == NOTICE:
                    for line in await stacks_of(child.group):
                        log.child_line(child.name, line)
            elif count >= NOTICE:
                log.info(f"{child.name} goes on; it was stopped for {count * LOOK:.0f} s")


def _say(child: Child, looks: int, log: Log) -> None:
    if looks >= LIMIT:
        raise LauncherError(f"{child.name} was stopped, and nobody let it go on for {LIMIT} s")
    if looks == NOTICE or looks % REMIND == 0:
        log.warning(
            f"{child.name} (process {child.group}) is stopped (SIGSTOP or a debugger) since "
            f"{looks * LOOK:.0f} s, so the server does not serve; SIGCONT lets it go on, and "
            f"after {LIMIT * LOOK:.0f} s the server ends"
        )


def _is_stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b") ")[2][:1] in (b"T", b"t")
