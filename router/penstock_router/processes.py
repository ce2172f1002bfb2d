"""Other processes' memory, CPU time and descriptors, as metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Processes(Collector):
    """What prometheus_client says of this process, of others, labelled with their names."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._pids: dict[str, int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def watch(self, name: str, pid: int) -> None:
        """Show a process from now on."""
        self._pids[name] = pid

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        metrics: dict[str, Metric] = {}
        for name, pid in self._pids.items():
            for one in ProcessCollector(self._prefix, lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                metric = metrics.setdefault(one.name, Metric(one.name, one.documentation, one.type))
                for sample in one.samples:
                    metric.add_sample(sample.name, {"process": name}, sample.value)
        yield from metrics.values()
