"""Rules between options, checked before anything is started."""

from __future__ import annotations

import importlib.util
import ssl
import tempfile
from pathlib import Path

from penstock_launcher.errors import LauncherError
from penstock_launcher.folder import check_file
from penstock_launcher.options import Options
from penstock_launcher.traces import check_traces


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
    _check_cache(options)
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
    if options.batch_folder is not None:
        _check_batches(Path(options.batch_folder))
    check_traces(options)
    _check_tls(options)
    _check_hosts(options)
    weights = options.weights_cache_override
    if weights is not None and not Path(weights).is_dir():
        raise LauncherError(f"--weights-cache-override must be a folder: {weights!r} is none")


def _check_cache(options: Options) -> None:
    size, tokens = options.kv_cache_memory, options.max_batch_total_tokens
    if size is not None and tokens is not None:
        raise LauncherError(
            "--kv-cache-memory and --max-batch-total-tokens both say how large the KV cache is: "
            f"{size} bytes and {tokens} tokens were given"
        )


def _check_batches(folder: Path) -> None:
    """It is made, for this user alone, and takes a file."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror
        raise LauncherError(f"--batch-folder {folder} cannot be written to: {reason}") from None


def _check_tls(options: Options) -> None:
    """The files must be there and fit before a model is fetched, as the router reads them later."""
    certificate, key = options.ssl_certfile, options.ssl_keyfile
    authorities = options.ssl_ca_certs
    if certificate is None:
        for name, value in (("ssl-keyfile", key), ("ssl-ca-certs", authorities)):
            if value is not None:
                raise LauncherError(f"--{name} was given without --ssl-certfile")
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = f"--ssl-certfile {certificate}" + (f" and --ssl-keyfile {key}" if key else "")
    try:
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise LauncherError(f"{names} cannot be used: {_reason(error)}") from None
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except OSError as error:
            reason = _reason(error)
            raise LauncherError(f"--ssl-ca-certs {authorities} cannot be used: {reason}") from None


def _check_hosts(options: Options) -> None:
    given = [options.hosts_secret_file, options.hosts_certs]
    if options.nnodes == 1:
        if options.node_rank or any(given):
            raise LauncherError("--node-rank and --hosts-* were given without --nnodes")
        return
    if options.node_rank >= options.nnodes:
        raise LauncherError(
            f"--node-rank must be below --nnodes: {options.node_rank} and {options.nnodes} were "
            "given"
        )
    if options.master_addr is None:
        raise LauncherError("--nnodes needs --master-addr, the address of host 0")
    if sum(one is not None for one in given) != 1:
        raise LauncherError("--nnodes needs one of --hosts-secret-file and --hosts-certs")
    if options.num_shard is not None and options.num_shard % options.nnodes:
        raise LauncherError(
            f"--num-shard must be a multiple of --nnodes: {options.num_shard} and {options.nnodes} "
            "were given"
        )


def _reason(error: OSError) -> str:
    return (getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None) or (
        error.strerror or str(error)
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
