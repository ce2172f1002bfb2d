"""Who started this launcher for its own use, and takes it along: `penstock.EmbeddedServer`.

Its parent's process id stands in PENSTOCK_PARENT. No pipe tells of its end, as forks of the parent
would hold the other end too, and PR_SET_PDEATHSIG would follow the thread that started it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from penstock_launcher.errors import LauncherError
from penstock_proto.progress import WANTED

VARIABLE = "PENSTOCK_PARENT"
KEY = "API_KEY"
LOOK_SECONDS = 0.25


def parent_process(environ: Mapping[str, str]) -> int | None:
    """Its id; None where nobody named one, and the launcher stands for itself."""
    return int(environ[VARIABLE]) if environ.get(VARIABLE) else None


def variables_of_options(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment that options are read from.

    A program says all of them on the command line, but for the key: a variable such as DTYPE or
    PORT is somebody else's there.
    """
    if parent_process(environ) is None:
        return environ
    return {name: environ[name] for name in (KEY,) if name in environ}


def draws_progress(environ: Mapping[str, str]) -> bool:
    """Whether whoever started this launcher shows progress itself, and reads it in the log."""
    return parent_process(environ) is not None and bool(environ.get(WANTED))


async def watch_parent(parent: int | None) -> None:
    """Raises LauncherError when the parent is gone; returns only where there is none to watch."""
    while parent is not None:
        if os.getppid() != parent:
            raise LauncherError(f"process {parent}, which started this server, is gone")
        await asyncio.sleep(LOOK_SECONDS)
