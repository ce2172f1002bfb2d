"""What the children are told: their configurations (docs/design.md) and their environments."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from penstock_launcher import hub_token
from penstock_launcher.child import Program, Role
from penstock_launcher.devices import cpu_cores
from penstock_launcher.host_place import Place
from penstock_launcher.listening import Ports
from penstock_launcher.model import HubModel, Model, S3Model
from penstock_launcher.options import Options
from penstock_launcher.traces import collector

AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
KEYS = ("API_KEY", "TGI_API_KEY", "VLLM_API_KEY")
SECRETS = (*hub_token.VARIABLES, *KEYS, "NGROK_AUTHTOKEN", *AWS)
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
    "override_generation_config",
    "default_chat_template_kwargs",
    "watermark_gamma",
    "otlp_service_name",
    "watermark_delta",
    "max_client_batch_size",
    "graceful_termination_timeout",
    "drain_delay",
    "disable_prefix_cache",
    "disable_shared_reads",
    "disable_grammar_support",
    "step_timeout",
    "batch_storage_limit",
    "predict_route",
    "health_route",
    "stream_keepalive",
    "max_request_time",
    "header_timeout",
    "idle_timeout",
    "max_headers",
    "max_header_size",
    "root_path",
    "metric_names",
)
SHARD_OPTIONS = (
    "dtype",
    "device",
    "load_format",
    "quantize",
    "quantize_activations",
    "kv_cache_dtype",
    "kv_block_size",
    "cuda_memory_fraction",
    "kv_cache_memory",
    "leave_free",
    "cuda_graphs",
    "disable_dependent_launch",
    "deterministic",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run, settled before anything is started."""

    options: Options
    shards: int
    gpus: int
    environ: Mapping[str, str]  # the launcher's own
    place: Place | None = None  # among several hosts

    @property
    def local_ranks(self) -> range:
        """Ranks of the shards of this host."""
        return range(self.shards) if self.place is None else self.place.local_ranks

    @property
    def on_cpu(self) -> bool:
        return self.options.device == "cpu" or not self.gpus


def download_program(wanted: HubModel, environ: Mapping[str, str]) -> Program:
    argv = (sys.executable, "-m", "penstock_launcher.download")
    config = dataclasses.asdict(wanted)
    return Program("download", Role.TASK, argv, config, without_secrets(environ))


def s3_program(wanted: S3Model, environ: Mapping[str, str]) -> Program:
    argv = (sys.executable, "-m", "penstock_launcher.s3_download")
    keys = {name: environ[name] for name in AWS if name in environ}
    environment = without_secrets(environ) | keys
    return Program("download", Role.TASK, argv, dataclasses.asdict(wanted), environment)


def check_program(plan: Plan, model: Model) -> Program:
    argv = (sys.executable, "-m", "penstock_shard.check")
    config = {
        "model_path": str(model.path),
        "load_format": plan.options.load_format,
        "shards": plan.shards,
    }
    return Program("check", Role.TASK, argv, config, without_secrets(plan.environ))


def shard_program(
    plan: Plan, model: Model, folder: Path, rank: int, listen: Mapping[str, str] | None = None
) -> Program:
    """listen: address and files of a shard whose router is on another host."""
    argv = (sys.executable, "-m", "penstock_shard")
    config = _chosen(plan.options, SHARD_OPTIONS) | {
        "model_path": str(model.path),
        "socket_folder": str(folder),
        "listen": listen,
    }
    environment = shard_environment(plan, rank)
    return Program(f"shard {rank}", Role.SHARD, argv, config, environment)


def router_program(
    plan: Plan,
    model: Model,
    folder: Path,
    ports: Ports,
    updates: int | None = None,
    phases: Mapping[str, float] = MappingProxyType({}),
    remote: Sequence[str] = (),
    keys: Mapping[str, str] | None = None,
    shards: Sequence[int] = (),
) -> Program:
    """updates: descriptor on which the router is told what changes while it runs. phases: seconds
    of the start until now. remote: `name@address:port` of shards on other hosts, and `keys` the
    files for them. shards: ids of the processes on this one."""
    options = plan.options
    argv = (sys.executable, "-m", "penstock_router")
    template, batches = options.tokenizer_config_path, options.batch_folder
    traces, protocol = collector(options) or (None, None)
    config = _chosen(options, ROUTER_OPTIONS) | {
        "model_path": str(model.path),
        "model_id": model.id,
        "model_sha": model.sha,
        "tokenizer_config_path": str(Path(template).absolute()) if template else None,
        "shard_sockets": [str(folder / f"shard-{rank}.sock") for rank in plan.local_ranks],
        "shard_processes": list(shards),
        "remote_shards": list(remote),
        "host_keys": keys,
        "otlp_endpoint": traces,
        "otlp_protocol": protocol,
        "max_input_tokens": options.max_input_tokens or options.max_input_length,
        "batch_folder": str(Path(batches).absolute()) if batches else None,
        "http_processes": http_processes(plan),
        **absolute(options, ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")),
        "listener": ports.main.fileno(),
        "updates": updates,
        "start_seconds": dict(phases),
        "prometheus_listener": ports.prometheus.fileno() if ports.prometheus else None,
        "offline_socket": offline_socket(options, folder),
    }
    environment = without_secrets(plan.environ) | {
        "TOKENIZERS_PARALLELISM": "false",
        "GRPC_ENABLE_FORK_SUPPORT": "0",  # its children are other programs; else it says so
    }
    descriptors = ports.descriptors if updates is None else (*ports.descriptors, updates)
    return Program("router", Role.ROUTER, argv, config, environment, descriptors)


def offline_socket(options: Options, folder: Path) -> str | None:
    """Where programs bring their batches."""
    return str(folder / "offline.sock") if options.offline_socket else None


def http_processes(plan: Plan) -> int:
    """How many processes serve HTTP in front of the router; 0: the router itself does.

    One keeps a core busy when there is much to do, as router and shards do, and clients or others
    want some too: 1B on an H100 with 16 cores, eight of them for clients, agent1000, thousands of
    tokens a second with 0 to 4 processes: 33.0, 30.9, 36.4, 39.5, 32.5. On a CPU the shards have
    better use for the cores.
    """
    if plan.options.http_processes is not None:
        return plan.options.http_processes
    if plan.on_cpu or plan.options.offline_socket:
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
        threads = max(cpu_cores() // len(plan.local_ranks), 1)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    return environment


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in SECRETS}


def absolute(options: Options, names: tuple[str, ...]) -> dict[str, str | None]:
    """Options that are paths; None: not given."""
    found = {name: getattr(options, name) for name in names}
    return {name: str(Path(path).absolute()) if path else None for name, path in found.items()}


def _chosen(options: Options, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}
