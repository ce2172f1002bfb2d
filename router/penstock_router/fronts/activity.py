"""Whether another process of this machine computes, though it says nothing."""

from __future__ import annotations

from pathlib import Path

AFTER_NAME = b") "  # the name in /proc/PID/stat may hold anything, parentheses too
STATE, USER_TIME, SYSTEM_TIME = 0, 11, 12  # places behind the name: proc(5), less 3


class Activity:
    """Looks at a process from time to time."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/stat")
        self._time = b""

    def computes(self) -> bool:
        """It has run since the look before, or waits for a processor; False where it is gone."""
        try:
            fields = self._path.read_bytes().rpartition(AFTER_NAME)[2].split()
        except OSError:
            return False
        before, self._time = self._time, b" ".join(fields[USER_TIME : SYSTEM_TIME + 1])
        return fields[STATE] == b"R" or (before != b"" and before != self._time)
