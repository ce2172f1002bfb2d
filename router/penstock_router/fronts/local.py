"""HTTP and text in the scheduling process itself."""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import web

from penstock_router.api.app import make_app, make_runner
from penstock_router.config import RouterConfig
from penstock_router.engine import Engine
from penstock_router.fronts.acceptor import url_of
from penstock_router.metrics import Metrics
from penstock_router.text import TextModel


class Front(Protocol):
    """What serves HTTP and text."""

    failed: asyncio.Future[None]  # a part of it has died

    async def load(self) -> None:
        """Begin to read tokenizer and chat template. Raises ValueError where it can already."""

    async def open(self, engine: Engine, metrics: Metrics) -> str:
        """Take requests; the URL. Raises OSError when the address cannot be listened at."""

    def drain(self) -> None:
        """Turn new requests away, as the engine does from now on."""

    async def close(self) -> None:
        """Send what is left of answers, and end."""


class LocalFront:
    """See the module."""

    def __init__(self, config: RouterConfig) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._config = config
        self._text: TextModel | None = None
        self._runner: web.AppRunner | None = None

    async def load(self) -> None:
        config = self._config
        self._text = TextModel.load(
            config.model_path, config.tokenizer_config_path, config.validation_workers
        )

    async def open(self, engine: Engine, metrics: Metrics) -> str:
        assert self._text is not None
        config = self._config
        self._runner = make_runner(make_app(config, engine, self._text, metrics))
        await self._runner.setup()
        await web.TCPSite(self._runner, config.hostname, config.port, backlog=2048).start()
        return url_of(config.hostname, self._runner.addresses[0][1])

    def drain(self) -> None:
        """The API sees that the engine does."""

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._text is not None:
            self._text.close()
