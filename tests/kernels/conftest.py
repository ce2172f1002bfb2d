"""Which cases of the kernels in Gluon `make test` runs; `make test-full` runs all."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before those that are marked are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each case with one of the two orders in which partitions of a program take turns, chosen so
    that either parameter of two meets both orders."""
    cases: dict[object, dict[str, int]] = {}  # by function: each case's number
    for item in items:
        if "interpret" not in getattr(item, "fixturenames", ()):
            continue
        assert isinstance(item, pytest.Function)
        loader_first = item.callspec.params["interpret"]
        case = repr([pair for pair in item.callspec.indices.items() if pair[0] != "interpret"])
        numbers = cases.setdefault(item.function, {})
        number = numbers.setdefault(case, len(numbers))
        if number.bit_count() % 2 != loader_first:
            item.add_marker(pytest.mark.full)
