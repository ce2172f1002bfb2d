"""What a program needs of whoever has the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.lang.choices import Method
from penstock.lang.prompt import Prompt
from penstock.lang.sampling import Sampling


class BackendError(RuntimeError):
    """The backend refused a request, failed, or cannot be reached. status: of HTTP, if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Unsupported(NotImplementedError):
    """A backend cannot do what a program asks for; the message says what could be done."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What was generated, or there is of it so far. Of several samples (`n`) lists."""

    text: str | list[str]
    meta: dict[str, Any] | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice, and what `get_meta_info` shows."""

    choice: str
    meta: dict[str, Any]


class Backend(ABC):
    """Several threads may call it at once."""

    @abstractmethod
    def generate(self, prompt: Prompt, sampling: Sampling) -> Generation:
        """Continue a prompt. Raises BackendError, Unsupported."""

    @abstractmethod
    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Generation]:
        """The same, with all that there is at each step. Closing it ends the generation."""

    def select(self, prompt: Prompt, choices: Sequence[str], method: Method) -> Selection:
        """The likeliest continuation among choices."""
        raise self._cannot("score choices")

    def text(self, prompt: Prompt) -> str:
        """A prompt as the model reads it."""
        if not prompt.has_turns:
            return prompt.text
        lines = [f"{message.role}: {message.content}\n" for message in prompt.messages]
        return "".join([*lines, f"{prompt.role}: {prompt.text}" if prompt.role else ""])

    def prefill(self, prompt: Prompt) -> None:
        """Compute a prompt, so that what begins like it need not."""
        raise self._cannot("cache a prefix")

    def flush_cache(self) -> None:
        """Empty the prefix cache."""
        raise self._cannot("flush a prefix cache")

    def get_server_info(self) -> dict[str, Any]:
        """Limits and options of the server."""
        raise self._cannot("tell about a server")

    def _cannot(self, what: str) -> Unsupported:
        return Unsupported(f"the backend {type(self).__name__} cannot {what}; RuntimeEndpoint can")


class _Default:
    backend: Backend | None = None


def set_default_backend(backend: Backend) -> None:
    """The backend of programs that are given none. Raises TypeError for what is none."""
    if not isinstance(backend, Backend):
        raise TypeError(f"`backend` must be a backend. Given: {type(backend).__name__}")
    _Default.backend = backend


def chosen(backend: Backend | None) -> Backend:
    """The backend, or the default one. Raises RuntimeError where there is neither."""
    found = backend or _Default.backend
    if found is None:
        raise RuntimeError(
            "no backend: call set_default_backend(RuntimeEndpoint(url)), or give `backend`"
        )
    return found
