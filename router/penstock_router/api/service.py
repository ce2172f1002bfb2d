"""What the handlers share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from aiohttp import web

from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.interface import Engine
from penstock_router.config import RouterConfig
from penstock_router.metrics import Metrics
from penstock_router.text import TextModel

VERSION = version("penstock")
FINGERPRINT = f"penstock-{VERSION}"


class Permits:
    """How many prompts may be in the server at once. There is no waiting room."""

    def __init__(self, count: int) -> None:
        self.free = count

    @contextlib.contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Hold permits. Raises ApiError (429) when there are not as many."""
        if count > self.free:
            raise ApiError(Kind.OVERLOADED)
        self.free -= count
        try:
            yield
        finally:
            self.free += count


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of the router, as the API sees them."""

    config: RouterConfig
    engine: Engine
    text: TextModel
    metrics: Metrics
    permits: Permits

    @property
    def model_name(self) -> str:
        """What answers call the model."""
        return self.config.served_model_name or self.config.model_id

    def check_model(self, name: str | None) -> None:
        """With a served model name other names do not exist; without one any name is the model."""
        served = self.config.served_model_name
        if served is not None and name is not None and name != served:
            raise ApiError(
                Kind.NOT_FOUND, f"The model `{name[:128]}` does not exist; there is `{served}`"
            )


SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
