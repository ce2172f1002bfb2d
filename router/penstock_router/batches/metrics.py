"""What the server counts of batches: the process that answers them says so, a line of JSON each."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

from penstock_router.exposition import Counter, Gauge, Registry

Status = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelled"
]
Result = Literal["completed", "failed"]


class BatchMetrics:
    """A part of `Metrics`."""

    def __init__(self, registry: Registry) -> None:
        self.batches = registry.family(
            "penstock_batches",
            "Batches of /v1/batches that are kept, by status",
            "status",
            {status: Gauge() for status in get_args(Status)},
        )
        self.requests = registry.family(
            "penstock_batch_requests_total",
            "Requests of batches that have their result, by status 200 or not",
            "result",
            {result: Counter() for result in get_args(Result)},
        )

    def take(self, line: bytes) -> None:
        """`{"batches": {status: number}, "requests": {result: number since the last line}}`.

        Raises ValueError for anything else.
        """
        told = json.loads(line)
        if not isinstance(told, dict):
            raise ValueError("no object")
        batches, requests = (_numbers(told.get(name)) for name in ("batches", "requests"))
        for status, gauge in self.batches.items():
            gauge.set(batches.get(status, 0))
        for result, counter in self.requests.items():
            counter.inc(requests.get(result, 0))


def _numbers(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not all(type(n) is int and n >= 0 for n in value.values()):
        raise ValueError("no object of numbers")
    return value
