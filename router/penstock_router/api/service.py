"""What the handlers share."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from aiohttp import web

from penstock_router.api.awakening import Awakening
from penstock_router.api.bodies import Bodies
from penstock_router.api.clients import Clients
from penstock_router.api.errors import ApiError, Kind, invalid
from penstock_router.api.interface import Engine, Metrics
from penstock_router.api.turns import Turns
from penstock_router.config import RouterConfig
from penstock_router.text import TextModel

if TYPE_CHECKING:  # its libraries are an extra
    from penstock_router.traces import Traces

VERSION = version("penstock")
REMEMBERED = 1024  # that were logged once
# Names that clients send when they were given none: Hugging Face's, SGLang's, and others.
NO_NAMES = ("tgi", "dummy", "default")
FINGERPRINT = f"penstock-{VERSION}"


class Permits:
    """How many sequences may be in the server at once. There is no waiting room.

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
        """Hold permits. Raises ApiError: 429 when as many are not free, 422 when there are not
        as many at all."""
        if count > self._count:
            raise invalid(
                f"the request asks for {count} sequences, and the server takes at most "
                f"{self._count} at a time (`--max-concurrent-requests`)"
            )
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
    turns: Turns
    clients: Clients
    bodies: Bodies
    sampling_defaults: Mapping[str, float]  # of /v1
    traces: Traces | None
    awakening: Awakening = field(default_factory=Awakening)
    logged: set[str] = field(default_factory=set)  # what is said once: names of ignored fields, …

    @property
    def model_name(self) -> str:
        """What answers call the model."""
        return self.model_names[0]

    @property
    def model_names(self) -> tuple[str, ...]:
        """What the model is called, first of all what answers call it."""
        return self.config.served_model_name or (self.config.model_id,)

    def check_model(self, name: str | None) -> None:
        """With served model names others do not exist; without them any name is the model.

        Accepted in any case: the model's id, and what clients send that were given no name, among
        it the address of the server.
        """
        served = self.config.served_model_name
        if not served or name is None or name in {*served, *NO_NAMES, self.config.model_id}:
            return
        if not name.startswith(("http://", "https://")):
            raise self.no_model(name)

    def no_model(self, name: str) -> ApiError:
        """There is no model of that name."""
        there_is = ", ".join(f"`{served}`" for served in self.model_names)
        return ApiError(
            Kind.NO_MODEL, f"The model `{name[:128]}` does not exist; there is {there_is}"
        )


SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
