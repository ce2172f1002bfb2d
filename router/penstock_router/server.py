"""The router process: puts the parts together, says when it is ready, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import orjson
import uvloop
from aiohttp import web

from penstock_proto.stacks import ask_for_stacks
from penstock_router import metric_names
from penstock_router.allocator import keep_no_large_blocks
from penstock_router.api.app import make_scrape_runner
from penstock_router.api.connections import allow_descriptors
from penstock_router.batches.process import answer_batches
from penstock_router.callers import Callers
from penstock_router.collector import freeze_gc
from penstock_router.config import RouterConfig
from penstock_router.engine import Engine
from penstock_router.fronts.front import Front
from penstock_router.fronts.group import FrontFailure, FrontGroup
from penstock_router.fronts.local import LocalFront
from penstock_router.limits import LimitError, ServerLimits, derive, warmup_request
from penstock_router.listening import inherited
from penstock_router.logs import configure_logs, log
from penstock_router.metrics import Metrics
from penstock_router.scheduler import Scheduler, SchedulerConfig
from penstock_router.scheduler.costs import STEPS_A_PROMPT
from penstock_router.scheduler.sharing import WORTH_TOKENS
from penstock_router.shard_client import ShardFailure, ShardGroup, ShardSilent
from penstock_router.start import ledger, longest
from penstock_router.text.definition import read_definition
from penstock_router.text.eos import eos_token_ids
from penstock_router.updates import listen_for_updates

T = TypeVar("T")

READY = "PENSTOCK_READY_FD"


def main() -> int:
    """Run the router with the configuration on standard input; its exit code."""
    configure_logs()
    keep_no_large_blocks()
    allow_descriptors()
    try:
        config = RouterConfig.from_json(sys.stdin.read())
        _keep_from_children(
            os.environ.get(READY), config.listener, config.prometheus_listener, config.updates
        )
        return uvloop.run(serve(config))
    except (FrontFailure, LimitError, ShardFailure, ValueError, OSError) as error:
        log("ERROR", f"{error}")
        return 1


def _keep_from_children(*descriptors: str | int | None) -> None:
    """What this process inherited stays with it: uvloop hands on all that can be inherited."""
    for descriptor in descriptors:
        if descriptor is not None:
            os.set_inheritable(int(descriptor), False)


async def serve(config: RouterConfig) -> int:
    """Serve until SIGTERM (0), or until the shards or what serves HTTP fail (1)."""
    front: Front = FrontGroup(config) if config.http_processes else LocalFront(config)
    try:
        await front.load()
        return await _serve(config, front)
    finally:
        await front.close()


async def _serve(config: RouterConfig, front: Front) -> int:
    shards = ShardGroup(config.shard_sockets, config.remote_shards, config.host_keys)
    grammars = asyncio.create_task(_load_tokenizer(config, shards))  # beside the warm-up
    # Where something else fails first, nobody waits for it, and its error is the fronts' too.
    grammars.add_done_callback(lambda task: task.cancelled() or task.exception())
    limits, phases, memory = await _unless(_warm_up(config, shards), front.failed)
    metrics = Metrics(limits.max_input_tokens, limits.max_total_tokens)
    model = (config.served_model_name or (config.model_id,))[0]
    metrics.others = lambda: metric_names.render(metrics, config.metric_names, model)
    metrics.on_start(phases, memory)
    metrics.on_capacity(limits.max_batch_total_tokens, limits.max_batch_size)
    scheduler = Scheduler(_scheduling(config, limits))
    engine = Engine(scheduler, shards, limits, metrics, config.step_timeout)
    engine.health.on_overdue = lambda: ask_for_stacks(config.shard_processes)
    scrapes = await _listen_for_scrapes(config, metrics)
    engine.start()
    url = await _unless(front.open(engine, metrics), front.failed, engine.failed)
    await _unless(asyncio.wait_for(grammars, None), front.failed, engine.failed)
    callers = Callers(lambda: metrics.request_count.value)
    terminated = _on_terminate()
    if config.updates is not None:
        listen_for_updates(config.updates, front.replace_keys)
    for part in (engine.failed, front.failed):
        part.add_done_callback(_announce)
    freeze_gc()
    _say_ready(url, limits, phases, memory)
    async with _batches(config, url, metrics):
        await _first_of(terminated, engine.failed, front.failed)
    end = time.monotonic() + config.graceful_termination_timeout
    if terminated.done():
        await _withdraw(config, engine, front, metrics)
    if front.failed.done():
        engine.give_up(str(front.failed.exception()))
    elif not engine.failed.done():
        front.drain()
        if await engine.drain(end - time.monotonic()):
            await callers.gone(end)
    await front.close()
    if scrapes is not None:
        await scrapes.cleanup()
    await shards.close()
    failures = [part.exception() for part in (engine.failed, front.failed) if part.done()]
    for failure in failures:
        log("ERROR", f"{failure}")
    return 1 if failures else 0


async def _withdraw(config: RouterConfig, engine: Engine, front: Front, metrics: Metrics) -> None:
    """Say at /ready that requests should go elsewhere, and take them until balancers have heard.

    What is turned away a balancer can send again only where it kept all of it, and it does not keep
    long requests. Where nobody looks there is nothing to wait for.
    """
    engine.withdraw()
    front.withdraw()
    if time.monotonic() - metrics.looked_at < config.drain_delay:
        seconds = min(config.drain_delay, config.graceful_termination_timeout / 2)
        log("INFO", f"/ready answers 503; requests are taken for another {seconds:g} s")
        failures = {engine.failed, front.failed}
        await asyncio.wait(failures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


@contextlib.asynccontextmanager
async def _batches(config: RouterConfig, url: str, metrics: Metrics) -> AsyncIterator[None]:
    """Batches are answered meanwhile, where there is a folder for them."""
    if config.batch_folder is None:
        yield
        return
    task = asyncio.create_task(answer_batches(config, url, metrics.batches.take))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _announce(failed: asyncio.Future[None]) -> None:
    """Say at once why the server ends; it may take a while, and then says so again."""
    log("WARNING", f"ending: {failed.exception()}")


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _unless(work: Coroutine[Any, Any, T], *failed: asyncio.Future[None]) -> T:
    """Do the work; what one of `failed` raises when that comes first."""
    task = asyncio.ensure_future(work)
    await _first_of(task, *failed)
    failures = [future.exception() for future in failed if future.done()]
    if not task.done():
        task.cancel()
        for failure in filter(None, failures):
            raise failure
    return await task


async def _warm_up(
    config: RouterConfig, shards: ShardGroup
) -> tuple[ServerLimits, dict[str, float], dict[str, int]]:
    """The limits, and where the time of the start and the memory went."""
    infos = await shards.info()
    request = warmup_request(config, infos)
    log("INFO", f"warming up: a prefill step of {request.max_prefill_tokens} tokens")
    try:
        warmups = await shards.warmup(request)
    except ShardSilent:
        ask_for_stacks(config.shard_processes)
        raise
    limits = derive(config, infos, request, warmups)
    log("INFO", "limits", **asdict(limits))
    return limits, config.start_seconds | longest([*infos, *warmups]), ledger(warmups)


async def _load_tokenizer(config: RouterConfig, shards: ShardGroup) -> None:
    """Tell the shards what the tokens of grammars are."""
    definition, eos = await asyncio.to_thread(_definition, config)
    if problem := await shards.load_tokenizer(definition, sorted(eos)):
        log("WARNING", f"requests with grammars are refused: {problem}")


def _definition(config: RouterConfig) -> tuple[bytes, frozenset[int]]:
    path = config.tokenizer_config_path
    tree = read_definition(Path(config.model_path), Path(path) if path else None).tree
    return orjson.dumps(tree), eos_token_ids(config.model_path, path)


def _scheduling(config: RouterConfig, limits: ServerLimits) -> SchedulerConfig:
    return SchedulerConfig(
        num_blocks=limits.num_blocks,
        block_size=limits.block_size,
        max_batch_size=limits.max_batch_size,
        max_batch_prefill_tokens=limits.max_batch_prefill_tokens,
        max_waiting_tokens=config.max_waiting_tokens,
        waiting_served_ratio=config.waiting_served_ratio,
        eos_token_ids=eos_token_ids(config.model_path, config.tokenizer_config_path),
        prefix_cache=not config.disable_prefix_cache,
        cheap_rows=limits.step_rows[0],
        step_rows=limits.step_rows,
        steps_a_prompt=STEPS_A_PROMPT[limits.device],
        shared_reads=None if config.disable_shared_reads else WORTH_TOKENS,
    )


async def _listen_for_scrapes(config: RouterConfig, metrics: Metrics) -> web.AppRunner | None:
    """Serve /metrics, and nothing else, on the second port if the operator named one."""
    if config.prometheus_listener is None:
        return None
    runner = make_scrape_runner(metrics)
    await runner.setup()
    await web.SockSite(runner, inherited(config.prometheus_listener)).start()
    return runner


def _on_terminate() -> asyncio.Future[None]:
    """A future that SIGTERM or SIGINT resolves; a second signal ends the process at once."""
    loop = asyncio.get_running_loop()
    terminated: asyncio.Future[None] = loop.create_future()

    def terminate() -> None:
        if terminated.done():
            os._exit(1)
        terminated.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminate)
    return terminated


def _say_ready(
    url: str, limits: ServerLimits, phases: dict[str, float], memory: dict[str, int]
) -> None:
    log("INFO", f"listening on {url}")
    if fd := os.environ.get(READY):
        with os.fdopen(int(fd), "w") as ready:
            answer = {"url": url, "limits": asdict(limits), "start": phases, "memory": memory}
            ready.write(json.dumps(answer) + "\n")
