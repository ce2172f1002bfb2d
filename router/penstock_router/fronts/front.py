"""What serves HTTP and text, as the server sees it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from penstock_proto.api_keys import ApiKey
from penstock_router.engine import Engine
from penstock_router.metrics import Metrics


class Front(Protocol):
    """`local.LocalFront` in this process, or `group.FrontGroup` in processes of their own."""

    failed: asyncio.Future[None]  # an exception: a part of it has died

    async def load(self) -> None:
        """Begin to read tokenizer and chat template. Raises ValueError where it can already."""

    async def open(self, engine: Engine, metrics: Metrics) -> str:
        """Take requests; the URL. Raises OSError when it cannot listen."""

    def withdraw(self) -> None:
        """Let whoever looks send requests elsewhere, as the engine does from now on."""

    def drain(self) -> None:
        """Turn new requests away, as the engine does from now on."""

    def replace_keys(self, keys: tuple[ApiKey, ...]) -> None:
        """These API keys count from now on, and no others."""

    async def close(self) -> None:
        """Send what is left of answers, and end; nothing happens the second time."""
