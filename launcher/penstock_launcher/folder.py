"""A model folder is looked at before anything in it is opened: it may come from anybody.

A link out of it would show a file of this machine to clients; a pipe would hang who opens it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from penstock_launcher.errors import LauncherError

# What router and shards read of a folder, by the end of its name.
READ = (".json", ".jinja", ".model", ".safetensors")
TEXT_LIMIT = 128 << 20  # bytes of a file that is read as a whole; the largest known has 35 MB
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_entries(folder: Path) -> None:
    """Raises LauncherError that names the first entry that is no plain file of the folder."""
    root = folder.resolve()
    for path in sorted(path for path in root.iterdir() if path.name.endswith(READ)):
        target = path.resolve()
        if not any(target.is_relative_to(home) for home in (root, *_blobs(root))):
            raise LauncherError(
                f"{path} is a link that leads out of its folder, to {target}: a model folder must "
                "hold its own files (weights may lie elsewhere with --weights-cache-override)"
            )
        check_file(path)


def check_file(path: Path, option: str | None = None) -> None:
    """Raises LauncherError for what is no plain file, or too large to be read as a whole.

    option: the one that named it.
    """
    name = f"--{option} {path}" if option else str(path)
    try:
        found = os.stat(path)
    except OSError as error:
        raise LauncherError(f"{name} cannot be read: {error.strerror}") from None
    for is_kind, kind in KINDS:
        if is_kind(found.st_mode):
            raise LauncherError(f"{name} is {kind}, not a file")
    if path.suffix != ".safetensors" and found.st_size > TEXT_LIMIT:
        raise LauncherError(
            f"{name} has {found.st_size:,} bytes; at most {TEXT_LIMIT:,} are read of such a file"
        )


def _blobs(root: Path) -> tuple[Path, ...]:
    """Where the links of a snapshot in the hub's cache lead: …/snapshots/<commit> -> …/blobs."""
    return (root.parent.parent / "blobs",) if root.parent.name == "snapshots" else ()
