"""What the children are told: their configurations (docs/design.md) and their environments."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_launcher import hub_token
from penstock_launcher.child import Program, Role
from penstock_launcher.devices import cpu_cores
from penstock_launcher.listening import Ports
from penstock_launcher.model import HubModel, Model
from penstock_launcher.options import Options

SECRETS = (*hub_token.VARIABLES, "API_KEY", "TGI_API_KEY", "NGROK_AUTHTOKEN")
CORES_PER_HTTP_PROCESS = 5
MOST_HTTP_PROCESSES = 4  # by default
DEFAULT_MASTER = ("127.0.0.1", 29500)  # TGI's, when only one of the two was given

# options that the router gets as they are
ROUTER_OPTIONS = (
    "tool_call_parser",
    "reasoning_parser",
    "served_model_name",
    "api_key",
    "cors_allow_origin",
    "max_connections_per_client",
    "max_requests_per_client",
    "trusted_proxies",
    "max_concurrent_requests",
    "max_best_of",
    "max_stop_sequences",
    "max_top_n_tokens",
    "max_total_tokens",
    "waiting_served_ratio",
    "max_batch_prefill_tokens",
    "max_batch_total_tokens",
    "step_rows",
    "max_waiting_tokens",
    "max_batch_size",
    "validation_workers",
    "payload_limit",
    "strict_requests",
    "generation_config",
    "watermark_gamma",
    "otlp_endpoint",
    "otlp_service_name",
    "watermark_delta",
    "max_client_batch_size",
    "graceful_termination_timeout",
    "disable_prefix_cache",
    "disable_shared_reads",
    "disable_grammar_support",
    "step_timeout",
    "predict_route",
    "health_route",
)
SHARD_OPTIONS = (
    "dtype",
    "device",
    "load_format",
    "quantize",
    "kv_cache_dtype",
    "kv_block_size",
    "cuda_memory_fraction",
    "cuda_graphs",
    "disable_dependent_launch",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run, settled before anything is started."""

    options: Options
    shards: int
    gpus: int
    environ: Mapping[str, str]  # the launcher's own

    @property
    def on_cpu(self) -> bool:
        return self.options.device == "cpu" or not self.gpus


def download_program(wanted: HubModel, environ: Mapping[str, str]) -> Program:
    argv = (sys.executable, "-m", "penstock_launcher.download")
    config = dataclasses.asdict(wanted)
    return Program("download", Role.TASK, argv, config, without_secrets(environ))


def check_program(plan: Plan, model: Model) -> Program:
    argv = (sys.executable, "-m", "penstock_shard.check")
    config = {
        "model_path": str(model.path),
        "load_format": plan.options.load_format,
        "shards": plan.shards,
    }
    return Program("check", Role.TASK, argv, config, without_secrets(plan.environ))


def shard_program(plan: Plan, model: Model, folder: Path, rank: int) -> Program:
    argv = (sys.executable, "-m", "penstock_shard")
    config = _chosen(plan.options, SHARD_OPTIONS) | {
        "model_path": str(model.path),
        "socket_folder": str(folder),
    }
    environment = shard_environment(plan, rank)
    return Program(f"shard {rank}", Role.SHARD, argv, config, environment)


def router_program(plan: Plan, model: Model, folder: Path, ports: Ports) -> Program:
    options = plan.options
    argv = (sys.executable, "-m", "penstock_router")
    template = options.tokenizer_config_path
    config = _chosen(options, ROUTER_OPTIONS) | {
        "model_path": str(model.path),
        "model_id": model.id,
        "model_sha": model.sha,
        "tokenizer_config_path": str(Path(template).absolute()) if template else None,
        "shard_sockets": [str(folder / f"shard-{rank}.sock") for rank in range(plan.shards)],
        "max_input_tokens": options.max_input_tokens or options.max_input_length,
        "http_processes": http_processes(plan),
        "listener": ports.main.fileno(),
        "prometheus_listener": ports.prometheus.fileno() if ports.prometheus else None,
    }
    environment = without_secrets(plan.environ) | {"TOKENIZERS_PARALLELISM": "false"}
    return Program("router", Role.ROUTER, argv, config, environment, ports.descriptors)


def http_processes(plan: Plan) -> int:
    """How many processes serve HTTP in front of the router; 0: the router itself does.

    One keeps a core busy when there is much to do, as router and shards do, and clients or others
    want some too: 1B on an H100 with 16 cores, eight of them for clients, agent1000, thousands of
    tokens a second with 0 to 4 processes: 33.0, 30.9, 36.4, 39.5, 32.5. On a CPU the shards have
    better use for the cores.
    """
    if plan.options.http_processes is not None:
        return plan.options.http_processes
    if plan.on_cpu:
        return 0
    count = min((cpu_cores() - plan.shards) // CORES_PER_HTTP_PROCESS, MOST_HTTP_PROCESSES)
    return count if count > 1 else 0  # one is a hop more, and as busy as the router was


def shard_environment(plan: Plan, rank: int) -> dict[str, str]:
    environment = without_secrets(plan.environ) | {
        "RANK": str(rank),
        "WORLD_SIZE": str(plan.shards),
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)  # an empty variable means that none was given
    options = plan.options
    if options.master_addr is not None or options.master_port is not None:
        environment["MASTER_ADDR"] = options.master_addr or DEFAULT_MASTER[0]
        environment["MASTER_PORT"] = str(options.master_port or DEFAULT_MASTER[1])
    if plan.on_cpu:
        threads = max(cpu_cores() // plan.shards, 1)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    return environment


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in SECRETS}


def _chosen(options: Options, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}
