"""Rules between options, checked before anything is started."""

from __future__ import annotations

from pathlib import Path

from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options


def check(options: Options) -> None:
    """Raises LauncherError that names the options, the rule and the values."""
    if options.max_input_tokens is not None and options.max_input_length is not None:
        raise LauncherError(
            "--max-input-length is the older name of --max-input-tokens: give one of them, not both"
        )
    longest = options.max_input_tokens or options.max_input_length
    _below("max-input-tokens", longest, "max-total-tokens", options.max_total_tokens)
    _at_most(
        "max-total-tokens",
        options.max_total_tokens,
        "max-batch-total-tokens",
        options.max_batch_total_tokens,
    )
    _at_most("max-input-tokens", longest, "max-batch-total-tokens", options.max_batch_total_tokens)
    if options.prometheus_port is not None and options.prometheus_port == options.port:
        raise LauncherError(
            f"--prometheus-port must differ from --port, which serves /metrics too: {options.port}"
        )
    _exists("tokenizer-config-path", options.tokenizer_config_path, folder=False)
    _exists("weights-cache-override", options.weights_cache_override, folder=True)


def _below(name: str, value: int | None, other: str, limit: int | None) -> None:
    if value is not None and limit is not None and value >= limit:
        raise LauncherError(f"--{name} must be less than --{other}: {value} and {limit} were given")


def _at_most(name: str, value: int | None, other: str, limit: int | None) -> None:
    if value is not None and limit is not None and value > limit:
        raise LauncherError(f"--{name} must be at most --{other}: {value} and {limit} were given")


def _exists(name: str, path: str | None, *, folder: bool) -> None:
    if path is None:
        return
    if not (Path(path).is_dir() if folder else Path(path).is_file()):
        raise LauncherError(
            f"--{name} must be a {'folder' if folder else 'file'}: {path!r} is none"
        )
