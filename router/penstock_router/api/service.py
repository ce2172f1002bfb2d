"""What the handlers share."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from aiohttp import web

from penstock_router.api.bodies import Bodies
from penstock_router.api.clients import Clients
from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.interface import Engine, Metrics
from penstock_router.config import RouterConfig
from penstock_router.text import TextModel

VERSION = version("penstock")
FINGERPRINT = f"penstock-{VERSION}"


class Permits:
    """How many prompts may be in the server at once. There is no waiting room.

    held: how many each process holds, in memory that all of them share; this one's stand at
    `place`. A process notes its own before it counts: two that ask for the last permit at once are
    both refused, not both given it. (A processor may count before others see what it noted, but by
    nanoseconds; here some twenty bytecodes lie between.)
    """

    def __init__(self, count: int, held: memoryview[int] | None = None, place: int = 0) -> None:
        self._count = count
        self._held = memoryview(array("q", [0])) if held is None else held
        self._place = place

    @property
    def free(self) -> int:
        """How many nobody holds."""
        return self._count - sum(self._held)

    @contextlib.contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Hold permits. Raises ApiError (429) when there are not as many."""
        held, place = self._held, self._place
        held[place] += count
        try:
            if self.free < 0:
                raise ApiError(Kind.OVERLOADED)
            yield
        finally:
            held[place] -= count


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of the router, as the API sees them."""

    config: RouterConfig
    engine: Engine
    text: TextModel
    metrics: Metrics
    permits: Permits
    clients: Clients
    bodies: Bodies

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
