"""Penstock for Python programs: models in this process's reach, and servers to talk to.

from penstock import LLM, SamplingParams

Names are looked up when they are first used, so `penstock.lang` and `penstock.bench` load nothing
that they do not need, and no part of this package needs torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.embedded import EmbeddedServer, ServerError

__version__ = importlib.metadata.version("penstock")

_PLACES = {  # name -> the module that has it
    "EmbeddedServer": "penstock.embedded",
    "ServerError": "penstock.embedded",
}
__all__ = ["EmbeddedServer", "ServerError", "__version__"]


def __getattr__(name: str) -> Any:
    if (place := _PLACES.get(name)) is None:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(place), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
