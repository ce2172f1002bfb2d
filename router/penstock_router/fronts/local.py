"""HTTP and text in the scheduling process itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from penstock_router.api.app import make_app, make_runner
from penstock_router.api.service import SERVICE
from penstock_router.config import RouterConfig
from penstock_router.engine import Engine
from penstock_router.fronts.text import load_text
from penstock_router.listening import BACKLOG, inherited, url_of
from penstock_router.metrics import Metrics
from penstock_router.offline.server import OfflineServer
from penstock_router.text import TextModel


class LocalFront:
    """See the module, and `front.Front`."""

    def __init__(self, config: RouterConfig) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._config = config
        self._text: TextModel | None = None
        self._runner: web.AppRunner | None = None
        self._offline: OfflineServer | None = None

    async def load(self) -> None:
        config = self._config
        self._text = load_text(config)

    async def open(self, engine: Engine, metrics: Metrics) -> str:
        assert self._text is not None
        self._text.warn_about_rows(engine.limits.vocab_size)
        config = self._config
        app = make_app(config, engine, self._text, metrics)
        self._runner = make_runner(app)
        await self._runner.setup()
        if config.offline_socket is not None:
            self._offline = await OfflineServer.open(app[SERVICE], Path(config.offline_socket))
        listener = inherited(config.listener)
        await web.SockSite(self._runner, listener, backlog=BACKLOG).start()
        return url_of(listener)

    def drain(self) -> None:
        """The API sees that the engine does."""

    async def close(self) -> None:
        if self._offline is not None:
            self._offline.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        if self._text is not None:
            self._text.close()
