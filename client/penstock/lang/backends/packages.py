"""Other people's packages, which are installed only where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from penstock.lang.backend import Unsupported


def needed(name: str, backend: str) -> ModuleType:
    """The package. Raises ImportError that says what to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(
            f"the backend {backend} needs the package {name}: pip install 'penstock[{name}]'",
            name=name,
        ) from None


def refuse(backend: str, **fields: object) -> None:
    """Raises Unsupported for the first field that has a value."""
    for name, value in fields.items():
        if value:
            raise Unsupported(f"the backend {backend} has no `{name}`; RuntimeEndpoint has")
