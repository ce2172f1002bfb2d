"""How long the last start like this one took, for whoever waits for the next."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

LONGEST = 1 << 16  # bytes of the file
MOST = 64  # starts that are kept
MOST_SECONDS = 86_400.0


def path_of(environ: Mapping[str, str]) -> Path:
    """The file, in this user's cache."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "penstock" / "starts.json"


class LastStarts:
    """Seconds by kind of start. A file that cannot be read or is damaged says nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def expected(self, kind: str) -> float | None:
        """Seconds that the last one of this kind took; None where nobody knows."""
        return self._read().get(kind)

    def record(self, kind: str, seconds: float) -> None:
        """Keep it, in place of the oldest where there are too many."""
        kept = self._read()
        kept.pop(kind, None)
        kept[kind] = round(min(seconds, MOST_SECONDS), 2)
        text = json.dumps(dict(list(kept.items())[-MOST:]), indent=0)
        with contextlib.suppress(OSError):  # a file system that is read-only or full
            self._path.parent.mkdir(parents=True, exist_ok=True)
            made = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            made.write_text(text)
            made.replace(self._path)

    def _read(self) -> dict[str, float]:
        try:
            with self._path.open("rb") as file:
                data = file.read(LONGEST + 1)
            found = json.loads(data) if len(data) <= LONGEST else {}
        except (OSError, ValueError, RecursionError):
            return {}
        items = found.items() if isinstance(found, dict) else ()
        return {kind: seconds for kind, seconds in items if _is_time(seconds)}


def _is_time(seconds: object) -> bool:
    return (
        isinstance(seconds, int | float)
        and not isinstance(seconds, bool)
        and math.isfinite(seconds)
        and 0 < seconds <= MOST_SECONDS
    )
