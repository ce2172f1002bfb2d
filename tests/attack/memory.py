"""Memory of the router, where its process can be found."""

from __future__ import annotations

import asyncio
from contextlib import suppress

try:
    import psutil
except ImportError:  # it comes with the tests, not with the server
    psutil = None

from tests.attack.target import Target

MODULE = "penstock_router"  # fronts are `penstock_router.fronts`


def router_processes(target: Target) -> list[psutil.Process]:
    """The processes that serve HTTP on the target's port, the router that they belong to, and those
    that render for them."""
    found: dict[int, psutil.Process] = {}
    if psutil is None:
        return []
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.laddr.port != target.port:
                continue
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(connection.pid)
                for member in (process, *process.parents(), *process.children(recursive=True)):
                    if any(MODULE in word for word in member.cmdline()):
                        found[member.pid] = member
    return list(found.values())


class Memory:
    """Resident megabytes of some processes, looked at now and then."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self._processes = processes
        self.before = self.peak = self.after = self._now()

    def _now(self) -> float:
        total = 0
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 1e6

    def look(self) -> None:
        """Take down what there is now."""
        self.after = self._now()
        self.peak = max(self.peak, self.after)

    async def follow(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(0.1)

    def __str__(self) -> str:
        if not self._processes:
            return "-"
        return f"{self.before:.0f} {self.peak:.0f} {self.after:.0f}"
