"""From options to a running server: the model, the shards, the router, one line with the URL."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from penstock_launcher import shared_memory
from penstock_launcher.checks import check, check_lengths
from penstock_launcher.child import Program
from penstock_launcher.configs import (
    Plan,
    check_program,
    download_program,
    offline_socket,
    router_program,
    s3_program,
)
from penstock_launcher.devices import num_shards, visible_gpus
from penstock_launcher.errors import LauncherError
from penstock_launcher.folder import check_entries
from penstock_launcher.hosts import Follower, Leader
from penstock_launcher.hub_token import hub_token
from penstock_launcher.last_start import LastStarts, path_of
from penstock_launcher.listening import Ports
from penstock_launcher.logs import Log
from penstock_launcher.model import (
    DEMO,
    HubModel,
    Model,
    S3Model,
    check_folder,
    is_s3,
    local_model,
)
from penstock_launcher.options import OPTIONS, Options
from penstock_launcher.overlay import prepared
from penstock_launcher.parent import parent_process
from penstock_launcher.run_folder import RunFolder
from penstock_launcher.several_hosts import Run, follow, lead, meet, place_of
from penstock_launcher.start_clock import StartClock
from penstock_launcher.supervisor import Supervisor
from penstock_launcher.updates import ReadKeys, Updates

NO_PARTS: Mapping[str, int] = MappingProxyType({})


def serve(
    options: Options, environ: Mapping[str, str], log: Log, read_keys: ReadKeys | None = None
) -> int:
    """Serve until a signal or a failure. Returns the exit code, or raises LauncherError.

    read_keys: the API keys, as they are when their file changes or SIGHUP comes; None: SIGHUP ends
    the server.
    """
    check(options)
    gpus = visible_gpus(environ) if options.device != "cpu" else 0
    plan = _plan(options, gpus, environ)
    local = local_model(options)
    with (
        Ports.take(options) as ports,
        RunFolder(options.shard_uds_path) as folder,
        Updates(read_keys, log, _key_file(options)) as updates,
    ):

        async def bring_up(supervisor: Supervisor) -> None:
            clock = StartClock()
            hosts = await meet(plan, folder.path, supervisor, log)
            model = local or await _download(supervisor, plan, log)
            clock.note("download", local is None)
            found, model = model.path, _prepare(model, options, folder.path)
            _announce(model, found, plan, log)
            await _check(supervisor, plan, model, log)
            clock.note("check")
            run = Run(supervisor, plan, model, folder.path, log)
            if isinstance(hosts, Follower):
                return await follow(run, hosts)
            await _start(run, ports, updates, clock, hosts)

        async def supervise() -> int:
            timeout = options.graceful_termination_timeout
            parent = parent_process(environ)
            return await Supervisor(log, folder, timeout, updates, parent).run(bring_up)

        return asyncio.run(supervise())


def _key_file(options: Options) -> Path | None:
    return None if options.api_key_file is None else Path(options.api_key_file)


def _plan(options: Options, gpus: int, environ: Mapping[str, str]) -> Plan:
    shards = num_shards(options, gpus)
    return Plan(options, shards, gpus, environ, place_of(options, shards))


async def _download(supervisor: Supervisor, plan: Plan, log: Log) -> Model:
    options, environ = plan.options, plan.environ
    assert options.model_id is not None
    with_weights = options.load_format == "auto" and options.weights_cache_override is None
    cache = options.huggingface_hub_cache
    if is_s3(options.model_id):
        log.info("fetching the model from its bucket", model_id=options.model_id)
        program = s3_program(S3Model.parse(options.model_id, cache, with_weights), environ)
    else:
        log.info("fetching the model from the hub", model_id=options.model_id)
        token = hub_token(environ)
        wanted = HubModel(options.model_id, options.revision, cache, token, with_weights)
        program = download_program(wanted, environ)
    answer = await _ask(supervisor, program)
    return Model(Path(answer["path"]), options.model_id, answer["sha"])


async def _check(supervisor: Supervisor, plan: Plan, model: Model, log: Log) -> None:
    """What config.json and the files say against each other, the options and any sense."""
    answer = await _ask(supervisor, check_program(plan, model))
    for notice in answer["notices"]:
        log.warning(notice)
    check_lengths(plan.options, answer["max_positions"])


async def _ask(supervisor: Supervisor, program: Program) -> dict[str, Any]:
    """Run a task for its answer. Raises LauncherError with the sentence that it gave instead."""
    (answer,) = await supervisor.ready([supervisor.start(program)])
    if "error" in answer:
        raise LauncherError(answer["error"])
    return answer


def _prepare(model: Model, options: Options, folder: Path) -> Model:
    if model.path != DEMO:
        check_entries(model.path)
    if options.weights_cache_override is not None:
        check_entries(Path(options.weights_cache_override))
    model = prepared(model, options, folder / "model")
    return check_folder(model, with_weights=options.load_format == "auto")


def _announce(model: Model, found: Path, plan: Plan, log: Log) -> None:
    """found: the model's own folder, where options do not change what is served of it."""
    if plan.options.model_id is None:
        log.info("no --model-id was given: serving the built-in demo model")
    if plan.options.load_format == "dummy":
        log.warning("--load-format dummy: the weights are random, and so are the answers")
    if said := shared_memory.notice(plan.shards, plan.gpus, plan.environ):
        log.warning(said)
    if model.path != found:
        log.info("options change what the model's files say", served=str(model.path))
    log.info(f"starting {model.id}", path=str(found), shards=plan.shards)


async def _start(
    run: Run, ports: Ports, updates: Updates, clock: StartClock, hosts: Leader | None
) -> None:
    """All at once: the router reads tokenizer and templates while the shards load, so that what is
    wrong with those is known before minutes have gone."""
    plan, supervisor = run.plan, run.supervisor
    remote = await lead(run, hosts) if hosts is not None else ()
    shards = [supervisor.start(program) for program in run.shard_programs()]
    program = router_program(
        plan,
        run.model,
        run.folder,
        ports,
        updates.descriptor,
        clock.phases,
        remote,
        hosts.keys.config() if hosts is not None else None,
        [shard.group for shard in shards],
    )
    router = supervisor.start(program)
    ports.close()  # else they would take connections when the router does no longer
    starts, kind, begun = LastStarts(path_of(plan.environ)), _kind(run), time.monotonic()
    *_, answer = await supervisor.ready([*shards, router], starts.expected(kind))
    starts.record(kind, time.monotonic() - begun)
    url, limits = reachable(answer["url"]), answer.get("limits", {})
    facts = {
        "url": url,
        "model": run.model.id,
        "offline_socket": offline_socket(plan.options, run.folder),
    }
    on = plan.options.nnodes if hosts is not None else 1
    start = clock.table(answer.get("start", {}))
    what = described(run.model, limits, on, answer.get("memory", {}))
    run.log.facts(f"Penstock ready: {url} ({what}; {start})", **facts, **limits)


def _kind(run: Run) -> str:
    """Starts that take about as long as each other."""
    options = run.plan.options
    where = (run.model.id, run.plan.shards, options.nnodes, options.device)
    how = (options.dtype, options.quantize, options.load_format, options.max_batch_size)
    return " ".join(map(str, (*where, *how)))


def _activations(limits: Mapping[str, Any]) -> list[str]:
    """Where `--quantize-activations` says it."""
    kind = limits.get("quantized_activations")
    return [f"activations in {kind}"] if kind else []


def described(
    model: Model, limits: Mapping[str, Any], hosts: int = 1, memory: Mapping[str, int] = NO_PARTS
) -> str:
    """What serves: the model, on which devices, how full they are, its weights, its batch."""
    parts = [f"model {model.id}"]
    if hosts > 1:
        parts.append(f"{hosts} hosts")
    if limits:
        used, total = (limits[f"memory_{name}"] / 2**30 for name in ("used", "total"))
        parts += [
            f"{limits['world_size']} x {limits['device_name']}",
            f"{used:.1f} of {total:.1f} GiB used{_parts(memory)}",
            f"{limits['weights']} weights",
            *_activations(limits),
            f"largest batch {limits['max_batch_size']}",
        ]
    return ", ".join(parts)


def _parts(memory: Mapping[str, int]) -> str:
    named = [f"{name} {size / 2**30:.1f}" for name, size in memory.items()]
    return f" ({', '.join(named)})".replace("_", " ") if named else ""


def reachable(url: str) -> str:
    """The URL as a client on this machine would write it: 0.0.0.0 is no address to call."""
    parts = urlsplit(url)
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return url
    if not address.is_unspecified:
        return url
    host = "127.0.0.1" if address.version == 4 else "[::1]"
    return urlunsplit(parts._replace(netloc=f"{host}:{parts.port}"))


def given(options: Options) -> dict[str, object]:
    """The options that differ from their defaults, secrets masked: what the log may show."""
    shown = {}
    for option in OPTIONS:
        value = getattr(options, option.name)
        if value != option.default:
            shown[option.name] = "***" if option.secret else value
    return shown
