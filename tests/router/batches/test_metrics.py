"""What /metrics shows of batches, from the lines of the process that answers them."""

from __future__ import annotations

import pytest

from penstock_router.batches.metrics import BatchMetrics
from penstock_router.exposition import Registry


def test_gauges_are_set_and_counters_grow() -> None:
    registry = Registry()
    metrics = BatchMetrics(registry)
    told = b'{"batches": {"in_progress": 2, "%s": 1}, "requests": {"completed": 3, "failed": 1}}\n'
    metrics.take(told % b"failed")
    metrics.take(told % b"unknown")
    page = registry.render().splitlines()
    for line in (
        'penstock_batches{status="in_progress"} 2',
        'penstock_batches{status="failed"} 0',
        'penstock_batch_requests_total{result="completed"} 6',
        'penstock_batch_requests_total{result="failed"} 2',
    ):
        assert line in page


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b'{"batches": {}, "requests": {"failed": -1}}', b"nan", b'"x"']
)
def test_other_lines_change_nothing(line: bytes) -> None:
    registry = Registry()
    metrics = BatchMetrics(registry)
    before = registry.render()
    with pytest.raises(ValueError):
        metrics.take(line)
    assert registry.render() == before
