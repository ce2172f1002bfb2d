"""Which cases of the kernels in Gluon `make test` runs; `make test-full` runs all."""

from __future__ import annotations

import math

import pytest


@pytest.hookimpl(tryfirst=True)  # before those that are marked are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each case with one of the two orders in which partitions of a program take turns."""
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and "interpret" in item.fixturenames
            and order_of(item) != item.callspec.params["interpret"]
        ):
            item.add_marker(pytest.mark.full)


def order_of(item: pytest.Function) -> bool:
    """By the bits of the number that the case has among those of its function, whatever else is
    collected: so each value of a parameter meets both orders."""
    parameters = [mark.args for mark in item.iter_markers("parametrize")]
    cases = math.prod(len(values) for _, values in parameters)
    numbers = (i for name, i in item.callspec.indices.items() if name != "interpret")
    return bool((next(numbers, 0) % cases).bit_count() % 2)
