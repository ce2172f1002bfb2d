"""HTTP and text in the scheduling process itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

from aiohttp import web

from penstock_proto.api_keys import ApiKey
from penstock_router.api.app import make_app, make_runner
from penstock_router.api.keys import KEYS
from penstock_router.api.quota import NearLedger
from penstock_router.api.service import SERVICE
from penstock_router.config import RouterConfig
from penstock_router.engine import Engine
from penstock_router.fronts.acceptor import Acceptor, take_connections
from penstock_router.fronts.text import load_text
from penstock_router.listening import inherited
from penstock_router.metrics import Metrics
from penstock_router.offline.server import OfflineServer
from penstock_router.quotas import Quotas
from penstock_router.text import TextModel
from penstock_router.tls import Tls


class LocalFront:
    """See the module, and `front.Front`."""

    def __init__(self, config: RouterConfig) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._config = config
        self._quotas = Quotas(config.keys)
        self._text: TextModel | None = None
        self._runner: web.AppRunner | None = None
        self._offline: OfflineServer | None = None
        self._door: Door | None = None

    async def load(self) -> None:
        config = self._config
        self._text = load_text(config)

    async def open(self, engine: Engine, metrics: Metrics) -> str:
        assert self._text is not None
        self._text.warn_about_rows(engine.limits.vocab_size)
        config = self._config
        metrics.keys = self._quotas.samples
        ledger = NearLedger(self._quotas)
        app = make_app(config, engine, self._text, metrics, ledger=ledger)
        self._runner = make_runner(app)
        await self._runner.setup()
        if config.offline_socket is not None:
            self._offline = await OfflineServer.open(app[SERVICE], Path(config.offline_socket))
        server = cast(Callable[[], asyncio.Protocol], self._runner.server)
        self._door = Door(inherited(config.listener), server, config, self._fail)
        return self._door.url

    def withdraw(self) -> None:
        """The API sees that the engine does."""

    def drain(self) -> None:
        """The API sees that the engine does."""

    def replace_keys(self, keys: tuple[ApiKey, ...]) -> None:
        self._quotas.replace(keys)
        if self._runner is not None:
            self._runner.app[KEYS].replace(keys)

    async def close(self) -> None:
        if self._offline is not None:
            self._offline.close()
        if self._door is not None:
            await self._door.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        if self._text is not None:
            self._text.close()

    def _fail(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_exception(OSError(reason))


class Door:
    """Takes connections as fronts do, with this process as the only one."""

    responsive = True

    def __init__(
        self,
        listener: socket.socket,
        server: Callable[[], asyncio.Protocol],
        config: RouterConfig,
        on_failure: Callable[[str], None],
    ) -> None:
        self.handover, source = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.handover.setblocking(False)
        self._tls = Tls(files) if (files := config.tls) is not None else None
        take_connections(source, server, self._tls)
        self._acceptor = Acceptor(listener, [self], on_failure, config.scheme)
        self.url = self._acceptor.url

    async def close(self) -> None:
        """Take no more; nothing happens the second time."""
        await self._acceptor.close()
        self.handover.close()
        if self._tls is not None:
            self._tls.stop()
