"""Parameters of which `make test` runs some and `make test-full` all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pytest


def crossed(*choices: Iterable[Any], sample: Callable[..., bool]) -> list[Any]:
    """Every combination of the choices; where `sample` of it is false, it is marked `full`."""
    return [
        pytest.param(*one, marks=() if sample(*one) else pytest.mark.full)
        for one in product(*choices)
    ]
