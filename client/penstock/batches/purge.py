"""Removes what is over: files and batches whose time is up, uploads that broke off."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from penstock_proto.batch_folder import ENDED, ID, BatchFolder, read_object

BROKEN_SECONDS = 3600.0  # after which what is still being made was left by a crash
BATCH_SECONDS = 30 * 86_400  # that a batch which has ended is shown


def purge(folder: BatchFolder) -> set[str]:
    """Returns the names of the batches that are left."""
    left: set[str] = set()
    for kind in ("file", "batch"):
        for owner in folder.owners(kind):
            for path in list(folder.of(kind, owner).iterdir()):
                if _is_over(path, kind):
                    shutil.rmtree(path, ignore_errors=True)
                elif kind == "batch":
                    left.add(path.name)
    return left


def _is_over(path: Path, kind: str) -> bool:
    now = time.time()
    if path.name.startswith("."):
        try:
            return now - path.stat().st_mtime > BROKEN_SECONDS
        except FileNotFoundError:
            return False
    shown = read_object(path) if ID.fullmatch(path.name) else None
    if shown is None:
        return False
    if kind == "file":
        return bool(shown["expires_at"] < now)
    return shown["status"] in ENDED and bool(shown["created_at"] + BATCH_SECONDS < now)
