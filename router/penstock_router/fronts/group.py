"""All processes that serve HTTP and text.

One of them dead means that the router is: its clients have lost their answers, and the launcher
ends everything when a part has died.
"""

from __future__ import annotations

import asyncio
import os

from penstock_proto.api_keys import ApiKey
from penstock_router.api.app import FLUSH_SECONDS
from penstock_router.api.connections import YOUNG_SECONDS
from penstock_router.config import RouterConfig
from penstock_router.engine import Engine
from penstock_router.fronts.acceptor import Acceptor
from penstock_router.fronts.child import FrontProcess
from penstock_router.listening import inherited
from penstock_router.metrics import Metrics
from penstock_router.quotas import Quotas

# For a front to answer what is on its way, to send what is left, and to end: aiohttp waits twice.
# The launcher's ROUTER_MARGIN is longer, so that the router can still say which one did not end.
END_SECONDS = YOUNG_SECONDS + 2 * FLUSH_SECONDS + 0.5


class FrontFailure(Exception):
    """A process that serves HTTP has died or hangs. The message names it."""


class FrontGroup:
    """See the module, and `front.Front`."""

    def __init__(self, config: RouterConfig) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._config = config
        self._fronts: list[FrontProcess] = []
        self._acceptor: Acceptor | None = None
        self._leaving = False
        self._quotas = Quotas(config.keys)

    async def load(self) -> None:
        """Start the processes; each loads its text while the shards warm up."""
        count = self._config.http_processes
        permits = os.memfd_create("permits")
        try:
            os.ftruncate(permits, count * 8)
            for place in range(count):
                front = await FrontProcess.start(self._config, place, permits, self._fail)
                self._fronts.append(front)
        finally:
            os.close(permits)

    async def open(self, engine: Engine, metrics: Metrics) -> str:
        """Take requests; the URL. Raises OSError when it cannot listen."""
        metrics.keys = self._quotas.samples
        await asyncio.gather(*(one.open(engine, metrics, self._quotas) for one in self._fronts))
        for place, front in enumerate(self._fronts):
            metrics.http_processes.watch(str(place), front.pid)
        engine.health.on_trouble = self._trouble
        self._trouble(engine.trouble)  # that there has been since the engine began
        listener = inherited(self._config.listener)
        self._acceptor = Acceptor(listener, self._fronts, self._fail, self._config.scheme)
        return self._acceptor.url

    def withdraw(self) -> None:
        """Let whoever looks send requests elsewhere, as the engine does from now on."""
        for front in self._fronts:
            front.withdraw()

    def drain(self) -> None:
        """Turn new requests away, as the engine does from now on."""
        for front in self._fronts:
            front.drain()

    def replace_keys(self, keys: tuple[ApiKey, ...]) -> None:
        """These API keys count from now on, and no others."""
        self._quotas.replace(keys)
        for front in self._fronts:
            front.replace_keys(keys)

    async def close(self) -> None:
        """Let the processes send what is left of answers, and end them."""
        if self._leaving:
            return
        self._leaving = True
        if self._acceptor is not None:
            await self._acceptor.close()
        for front in self._fronts:
            front.leave()
        if self._fronts:
            await asyncio.wait([front.ended for front in self._fronts], timeout=END_SECONDS)
        for front in self._fronts:
            front.kill()

    def _trouble(self, reason: str) -> None:
        for front in self._fronts:
            front.trouble(reason)

    def _fail(self, reason: str) -> None:
        if not self._leaving and not self.failed.done():
            self.failed.set_exception(FrontFailure(reason))
