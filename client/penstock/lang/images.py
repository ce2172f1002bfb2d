"""Images, which no model of this server sees yet."""

from __future__ import annotations

from typing import Any

from penstock.lang.backend import Backend, Unsupported


def refuse(source: Any, backend: Backend) -> None:
    """Raises Unsupported, always."""
    raise Unsupported(
        f"image(…): the models that {type(backend).__name__} reaches read text only, so an image "
        f"({type(source).__name__}) would not be seen. Describe it in words, or leave it out"
    )
