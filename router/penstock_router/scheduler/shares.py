"""Who has asked for much waits behind those who ask for little, for a while.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) with a bound: each sequence of a client starts
APART behind the one before it at the earliest, so of a burst the first stand where they would
without the others and the last MOST seconds behind. Of one client alone the order never changes.
"""

from __future__ import annotations

APART = 0.01  # seconds between two sequences of one client
MOST = 0.5  # half a level of priority
REMEMBERED = 1024  # clients, before those are forgotten who are behind nobody


class Shares:
    """When each client's last sequence starts."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def start(self, client: str, now: float) -> float:
        """Where a client's sequence stands that comes now: a time from `now` on.

        client: empty where nobody knows; those sequences stand where they come.
        """
        if not client:
            return now
        start = min(max(now, self._last.get(client, -APART) + APART), now + MOST)
        if len(self._last) >= REMEMBERED:
            self._last = {one: last for one, last in self._last.items() if last + APART > now}
        self._last[client] = start
        return start
