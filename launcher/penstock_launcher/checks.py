"""Rules between options, checked before anything is started."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from penstock_launcher.errors import LauncherError
from penstock_launcher.folder import check_file
from penstock_launcher.options import Options


def check(options: Options) -> None:
    """Raises LauncherError that names the options, the rule and the values."""
    if importlib.util.find_spec("torch") is None:
        raise LauncherError(
            "serving a model needs PyTorch, which is not installed: pip install 'penstock[all]'"
        )
    if options.max_input_tokens is not None and options.max_input_length is not None:
        raise LauncherError(
            "--max-input-length is the older name of --max-input-tokens: give one of them, not both"
        )
    longest = _longest_input(options)
    _below("max-input-tokens", longest, "max-total-tokens", options.max_total_tokens)
    _at_most(
        "max-total-tokens",
        options.max_total_tokens,
        "max-batch-total-tokens",
        options.max_batch_total_tokens,
    )
    _below("max-input-tokens", longest, "max-batch-total-tokens", options.max_batch_total_tokens)
    if options.prometheus_port is not None and options.prometheus_port == options.port:
        raise LauncherError(
            f"--prometheus-port must differ from --port, which serves /metrics too: {options.port}"
        )
    if options.offline_socket and options.http_processes:
        raise LauncherError(
            "--offline-socket needs --http-processes 0, because the process that schedules reads "
            f"and writes those batches itself: {options.http_processes} were given"
        )
    if options.tokenizer_config_path is not None:
        check_file(Path(options.tokenizer_config_path), "tokenizer-config-path")
    if options.otlp_endpoint is not None:
        _check_traces(options.otlp_endpoint)
    weights = options.weights_cache_override
    if weights is not None and not Path(weights).is_dir():
        raise LauncherError(f"--weights-cache-override must be a folder: {weights!r} is none")


def _check_traces(endpoint: str) -> None:
    if not re.fullmatch(r"https?://[^/\s]+:\d{1,5}/?", endpoint):
        raise LauncherError(
            f"--otlp-endpoint must be http://HOST:PORT or https://HOST:PORT, not {endpoint!r}"
        )
    if importlib.util.find_spec("opentelemetry") is None:
        raise LauncherError(
            "--otlp-endpoint needs OpenTelemetry's libraries, which are not installed: "
            "pip install 'penstock[otlp]'"
        )


def check_lengths(options: Options, positions: int) -> None:
    """Limits against the longest sequence that the model can take. Raises LauncherError."""
    model = f"the model's {positions} positions (max_position_embeddings in config.json)"
    if options.max_total_tokens is not None and options.max_total_tokens > positions:
        raise LauncherError(
            f"--max-total-tokens must be at most {model}: {options.max_total_tokens} was given"
        )
    longest = _longest_input(options)
    if longest is not None and longest >= positions:
        raise LauncherError(f"--max-input-tokens must be less than {model}: {longest} was given")


def _longest_input(options: Options) -> int | None:
    return options.max_input_tokens or options.max_input_length


def _below(name: str, value: int | None, other: str, limit: int | None) -> None:
    if value is not None and limit is not None and value >= limit:
        raise LauncherError(f"--{name} must be less than --{other}: {value} and {limit} were given")


def _at_most(name: str, value: int | None, other: str, limit: int | None) -> None:
    if value is not None and limit is not None and value > limit:
        raise LauncherError(f"--{name} must be at most --{other}: {value} and {limit} were given")
