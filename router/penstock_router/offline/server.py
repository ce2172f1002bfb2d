"""The Unix socket at which programs of the same user find the router."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Self

from penstock_router.api.service import Service
from penstock_router.offline.session import Session

# Sequences in the engine, for each slot of the batch: while one runs another one waits, so that no
# slot is ever free for want of a prompt.
SEQUENCES_A_SEAT = 2


class OfflineServer:
    """Listens until it is closed."""

    def __init__(self, server: asyncio.AbstractServer, path: Path) -> None:
        self._server = server
        self._path = path

    @classmethod
    async def open(cls, service: Service, path: Path) -> Self:
        """path: in a folder that is this user's alone. Raises OSError."""
        room = asyncio.Semaphore(SEQUENCES_A_SEAT * service.engine.limits.max_batch_size)
        umask = os.umask(0o177)
        try:
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: Session(service, room).wire, path
            )
        finally:
            os.umask(umask)
        return cls(server, path)

    def close(self) -> None:
        """Take no more connections. Those that there are end with what they have running."""
        self._server.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
