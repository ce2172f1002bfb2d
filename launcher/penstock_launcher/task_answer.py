"""How a child with a task (`Role.TASK`) that fetches a model answers the launcher."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from penstock_launcher.errors import LauncherError


def answer(fetch: Callable[[], tuple[Path, str | None]]) -> None:
    """Fetch, and say where the model is, or why there is none."""
    try:
        folder, sha = fetch()
        found = {"path": str(folder), "sha": sha}
    except LauncherError as error:
        found = {"error": str(error)}
    with open(int(os.environ["PENSTOCK_READY_FD"]), "w") as ready:
        print(json.dumps(found), file=ready)
