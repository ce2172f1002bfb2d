"""Every option, defined once: parsing, environment, help, defaults and the README table read this.

Names, environment variables (the same name in UPPER_SNAKE, plain or behind `TGI_`), defaults and
meanings are those of Text Generation Inference (TGI), so that its users keep their manifests.
Each group of options is a file; what --help shows of it fits a screen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from penstock_launcher.options.batches import Batches
from penstock_launcher.options.batching import Batching
from penstock_launcher.options.hardware import Hardware
from penstock_launcher.options.hosts import Hosts
from penstock_launcher.options.limits import Limits
from penstock_launcher.options.memory import Memory
from penstock_launcher.options.model import Model
from penstock_launcher.options.network import Network
from penstock_launcher.options.observability import Observability
from penstock_launcher.options.option import Option
from penstock_launcher.options.output import Output
from penstock_launcher.options.security import Security

__all__ = ["COMMON", "GROUPS", "OPTIONS", "Group", "Option", "Options"]


@dataclass(frozen=True)
class Options(
    Model,
    Hardware,
    Memory,
    Batching,
    Limits,
    Output,
    Network,
    Security,
    Observability,
    Batches,
    Hosts,
):
    """What the operator asked for. None: derived later, or off."""


@dataclass(frozen=True, slots=True)
class Group:
    """Options of one purpose."""

    name: str  # for --help NAME
    what: str
    fields: type

    @property
    def options(self) -> tuple[Option, ...]:
        return tuple(option for option in OPTIONS if option.group == self.name)


GROUPS = (
    Group("model", "the model, its files, and the type of its weights", Model),
    Group("hardware", "GPUs and processes: how many, and how they compute", Hardware),
    Group("memory", "memory of GPUs, the KV cache and the prefix cache", Memory),
    Group("batching", "what is computed together, and the queue", Batching),
    Group("limits", "what one request may ask for", Limits),
    Group("output", "structured output, tools, reasoning, defaults of sampling", Output),
    Group("network", "addresses, routes, processes that serve HTTP", Network),
    Group("security", "keys, certificates, limits of one client", Security),
    Group("observability", "logs, metrics and traces", Observability),
    Group("batches", "files of requests, and penstock.LLM", Batches),
    Group("hosts", "one model on several hosts", Hosts),
)

# what --help shows first: what people type most
COMMON = (
    "model_id",
    "port",
    "num_shard",
    "quantize",
    "max_total_tokens",
    "max_concurrent_requests",
    "cuda_memory_fraction",
    "api_key",
)


def _table() -> Iterator[Option]:
    for group in GROUPS:
        for field in dataclasses.fields(group.fields):
            yield Option(field.name, group.name, default=field.default, **field.metadata)


OPTIONS: tuple[Option, ...] = tuple(_table())
