"""What the API asks of the engine."""

from __future__ import annotations

from typing import Protocol

from penstock_router.limits import Limits
from penstock_router.request import GenerationRequest, Listener


class Engine(Protocol):
    """Runs validated requests. Everything happens on the event loop's thread."""

    limits: Limits

    def submit(self, request: GenerationRequest, listener: Listener) -> int:
        """Queue a request; the answer is its number. Raises ShuttingDown or GenerationFailed."""

    def cancel(self, request_id: int) -> None:
        """End a request without a word to its listener; harmless after its end."""

    @property
    def healthy(self) -> bool:
        """The shards live and make progress."""

    @property
    def draining(self) -> bool:
        """New requests are turned away."""
