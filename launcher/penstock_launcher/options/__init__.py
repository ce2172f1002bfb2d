"""Every option, defined once: parsing, environment, help, defaults and docs/options.md read this.

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
from penstock_launcher.options.clients import Clients
from penstock_launcher.options.connections import Connections
from penstock_launcher.options.hardware import Hardware
from penstock_launcher.options.hosts import Hosts
from penstock_launcher.options.limits import Limits
from penstock_launcher.options.memory import Memory
from penstock_launcher.options.model import Model
from penstock_launcher.options.network import Network
from penstock_launcher.options.observability import Observability
from penstock_launcher.options.option import Option
from penstock_launcher.options.output import Output
from penstock_launcher.options.overrides import Overrides
from penstock_launcher.options.security import Security
from penstock_launcher.options.weights import Weights

__all__ = ["COMMON", "GROUPS", "OPTIONS", "Group", "Option", "Options"]


@dataclass(frozen=True)
class Options(
    Model,
    Overrides,
    Weights,
    Hardware,
    Memory,
    Batching,
    Limits,
    Output,
    Network,
    Security,
    Clients,
    Connections,
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
    Group("model", "which model, its name, its files", Model),
    Group("overrides", "what is otherwise than the model's files say", Overrides),
    Group("weights", "type and quantisation of the weights", Weights),
    Group("hardware", "GPUs: how many, and how they compute", Hardware),
    Group("memory", "GPU memory, KV cache, prefix cache", Memory),
    Group("batching", "what is computed together, and the queue", Batching),
    Group("limits", "what one request may ask for", Limits),
    Group("output", "schemas, tools, reasoning, sampling", Output),
    Group("network", "address, routes, HTTP processes", Network),
    Group("security", "API keys, HTTPS, origins of browsers", Security),
    Group("clients", "limits of one client, proxies", Clients),
    Group("connections", "headers, silence, idle connections", Connections),
    Group("observability", "logs, metrics and traces", Observability),
    Group("batches", "files of requests, and penstock.LLM", Batches),
    Group("hosts", "one model on several hosts", Hosts),
)

# what --help shows first: what people type most, in a line each
COMMON = (
    ("--model-id ID", "what to serve: hub id or folder"),
    ("--port N", "where to listen (3000)"),
    ("--num-shard N", "over how many GPUs (all)"),
    ("--quantize KIND", "weights in fewer bits, such as fp8"),
    ("--max-total-tokens N", "longest prompt and answer together"),
    ("--cuda-memory-fraction X", "share of each GPU's memory to take (1.0)"),
    ("--api-key KEY", "what clients must send; better in API_KEY"),
)


def _table() -> Iterator[Option]:
    for group in GROUPS:
        for field in dataclasses.fields(group.fields):
            yield Option(field.name, group.name, default=field.default, **field.metadata)


OPTIONS: tuple[Option, ...] = tuple(_table())
