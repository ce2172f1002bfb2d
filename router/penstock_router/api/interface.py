"""What the API asks of the engine and tells the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstock_router.grammar import Grammar
from penstock_router.instruments import Failure
from penstock_router.limits import ServerLimits
from penstock_router.request import GenerationRequest, Listener


class Engine(Protocol):
    """Runs validated requests. Everything happens on the event loop's thread."""

    @property
    def limits(self) -> ServerLimits:
        """What the server takes."""

    async def prepare(self, grammar: Grammar) -> None:
        """Have a grammar compiled, before a request with it is submitted. Raises EngineError."""

    def submit(self, request: GenerationRequest, listener: Listener) -> int:
        """Queue a request; the answer is its number. Raises Draining or GenerationFailed."""

    def cancel(self, request_id: int) -> int:
        """End a request without a word to its listener; harmless after its end. How many tokens
        it had generated; 0 after its end."""

    def abort(self, name: str | None) -> None:
        """End requests of that name, or of that batch, or all (None), whoever waits for them:
        their listeners are told (`Aborted`)."""

    async def empty_cache(self) -> bool:
        """Forget all cached prefixes. False, and nothing is done, where anything runs or waits."""

    @property
    def trouble(self) -> str:
        """Why nothing would be generated now; empty while the shards live and answer."""

    @property
    def withdrawn(self) -> bool:
        """Requests should go elsewhere, as the server is about to end. True while draining too."""

    @property
    def draining(self) -> bool:
        """New requests are turned away."""


class Metrics(Protocol):
    """Counts HTTP requests; see `penstock_router.metrics.Metrics`."""

    def on_look(self) -> None: ...

    def on_request(self) -> None: ...

    def on_success(self, total: float, validation: float, per_token: Sequence[float]) -> None: ...

    def on_failure(self, reason: Failure) -> None: ...

    def on_disconnect(self) -> None: ...

    def on_slow_reader(self) -> None: ...

    def on_unsent(self, change: int) -> None: ...

    async def scrape(self) -> bytes: ...
