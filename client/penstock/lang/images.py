"""Images, which no backend sends yet."""

from __future__ import annotations

from typing import Any

from penstock.lang.backend import Backend, Unsupported


def refuse(source: Any, backend: Backend) -> None:
    """Raises Unsupported, always."""
    raise Unsupported(
        f"image(…): the backend {type(backend).__name__} sends text only, so the model would not "
        f"see what is given ({type(source).__name__}). Describe it in words, or leave it out"
    )
