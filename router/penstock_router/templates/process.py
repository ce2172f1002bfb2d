"""A process that renders, as the router sees it."""

from __future__ import annotations

from typing import Any

from penstock_router.templates import errors, wire
from penstock_router.templates.fork_server import ForkServer, ended
from penstock_router.templates.template import Job, Page


class Renderer:
    """A process that renders; replaced when it dies or takes too long. For one thread at a time."""

    def __init__(self, fork_server: ForkServer) -> None:
        self._fork_server = fork_server
        self._wire, self.pid, _ = fork_server.fork(None)

    def render(self, job: Job, seconds: float, wall_seconds: float) -> Page:
        """What the template makes of a job.

        seconds: of a processor. Raises TemplateError; TooSlow when either time is over.
        """
        try:
            packed = wire.pack({"seconds": seconds, "job": job})
        except TypeError as error:
            raise errors.TemplateError(f"the messages cannot be rendered: {error}") from None
        try:
            self._send(packed, wall_seconds)
            answer: dict[str, Any] = wire.receive(self._wire, wall_seconds)
        except TimeoutError:
            self._replace()
            raise errors.TooSlow from None
        except (EOFError, OSError, ValueError):
            raise ended(self._replace()) from None
        try:
            errors.raise_from(answer)
        except errors.TooSlow:
            # It was interrupted anywhere, in Jinja's own code too: what that left half done,
            # nobody knows.
            self._replace()
            raise
        return Page(**answer["page"])

    def _send(self, packed: bytes, seconds: float) -> None:
        try:
            self._wire.settimeout(seconds)
            self._wire.sendall(packed)
        except TimeoutError:
            raise
        except OSError:  # somebody else has killed it
            self._replace()
            self._wire.settimeout(seconds)
            self._wire.sendall(packed)

    def _replace(self) -> int:
        """How the last process ended."""
        self._wire.close()
        self._wire, self.pid, code = self._fork_server.fork(self.pid)
        return code
