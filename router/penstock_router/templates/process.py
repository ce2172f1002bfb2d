"""A process that renders, as the router sees it."""

from __future__ import annotations

from typing import Any

from penstock_router.templates import errors, wire
from penstock_router.templates.nursery import Nursery, ended
from penstock_router.templates.template import Job, Page


class Renderer:
    """A process that renders; replaced when it dies. For one thread at a time."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._wire, self.pid, _ = nursery.fork(None)

    def render(self, job: Job, seconds: float, wall_seconds: float) -> Page:
        """What the template makes of a job.

        seconds: of a processor. Raises TemplateError; TooSlow when either time is over.
        """
        try:
            packed = wire.pack({"seconds": seconds, "job": job})
        except TypeError as error:
            raise errors.TemplateError(f"the messages cannot be rendered: {error}") from None
        try:
            self._wire.settimeout(wall_seconds)
            self._send(packed)
            answer: dict[str, Any] = wire.receive(self._wire, wall_seconds)
        except TimeoutError:
            self._replace()
            raise errors.TooSlow from None
        except (EOFError, OSError, ValueError):
            raise ended(self._replace()) from None
        errors.raise_from(answer)
        return Page(**answer["page"])

    def _send(self, packed: bytes) -> None:
        try:
            self._wire.sendall(packed)
        except (BrokenPipeError, ConnectionError):  # killed, by somebody else
            self._replace()
            self._wire.sendall(packed)

    def _replace(self) -> int:
        """How the last process ended."""
        self._wire.close()
        self._wire, self.pid, code = self._nursery.fork(self.pid)
        return code
