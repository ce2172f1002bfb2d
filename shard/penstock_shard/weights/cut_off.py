"""Whether a safetensors file is all there, which its header tells.

A download or a copy that was interrupted leaves a part, and git without LFS a note of three lines.
Whatever else is wrong with a file the library says when it opens it.
"""

from __future__ import annotations

import json
from pathlib import Path

COUNT = 8  # bytes of the header's length, which come first
LONGEST = 100 << 20  # of a header, as the library has it
POINTER = b"version https://git-lfs"


def check_all_there(path: Path) -> None:
    """Raises ValueError for a part of a file, and for what stands in a file's place."""
    size, needed = path.stat().st_size, _needed(path)
    if needed is None:
        raise ValueError(
            f"{path} is a pointer of Git LFS in place of the weights: `git lfs pull` fetches them"
        )
    if size < needed:
        raise ValueError(
            f"{path} is cut off: it has {size:,} bytes and needs at least {needed:,}; fetch or "
            "copy it again"
        )


def _needed(path: Path) -> int | None:
    """Bytes that the file says it has; None for a pointer."""
    with path.open("rb") as file:
        first = file.read(len(POINTER))
        if first == POINTER:
            return None
        length = int.from_bytes(first[:COUNT], "little")
        if len(first) < COUNT or length > LONGEST:
            return COUNT
        file.seek(COUNT)
        return COUNT + length + _end(file.read(length))


def _end(header: bytes) -> int:
    """Where the last tensor ends, behind the header; 0 where it is damaged, or not all there."""
    try:
        places = json.loads(header)
        places.pop("__metadata__", None)
        return max((int(place["data_offsets"][1]) for place in places.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return 0
