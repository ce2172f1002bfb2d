"""Imports, while which Python need not look for garbage."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """What is imported in here stays as long as the process, and is never searched.

    Python would look through all of it again and again while it grows: a quarter of the processor
    time that the imports of the router take, and a quarter of torch's.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
