"""SGLang's routes beside /generate: what the server is, its cache, aborts, health."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from penstock_router.api.errors import ApiError, Kind, from_engine
from penstock_router.api.fields import checked
from penstock_router.api.json_body import read_json
from penstock_router.api.probes import unhealthy, unready
from penstock_router.api.service import SERVICE, VERSION, Service
from penstock_router.api.sglang_chat import EXTENSIONS
from penstock_router.api.sglang_schema import AbortRequest, AppendRequest
from penstock_router.api.tgi_routes import json_response
from penstock_router.request import EngineError, Finish, GenerationRequest, TopTokens

LONGEST_WAIT = 60.0  # seconds for what runs to end before the cache is emptied
LOOK_SECONDS = 0.05
PROBE_SECONDS = 20.0  # for one token
PROBE_PRIORITY = 100


async def model_info(request: web.Request) -> web.Response:
    """GET /model_info and /get_model_info"""
    service = request.app[SERVICE]
    config = _model_config(service.config.model_path)
    return json_response(
        {
            "model_path": service.config.model_id,
            "tokenizer_path": service.config.model_id,
            "is_generation": True,
            "preferred_sampling_params": None,
            "weight_version": "default",
            "has_image_understanding": False,
            "has_audio_understanding": False,
            "model_type": config.get("model_type"),
            "architectures": config.get("architectures"),
            "extensions": EXTENSIONS,  # of SGLang's /generate
        }
    )


async def server_info(request: web.Request) -> web.Response:
    """GET /server_info and /get_server_info: limits under the names of SGLang's arguments."""
    return json_response(_server_info(request.app[SERVICE]))


def _server_info(service: Service) -> dict[str, Any]:
    config, limits = service.config, service.engine.limits
    return {
        "model_path": config.model_id,
        "tokenizer_path": config.model_id,
        "served_model_name": service.model_name,
        "dtype": limits.dtype,
        "kv_cache_dtype": limits.kv_cache_dtype,
        "device": limits.device,
        "tp_size": limits.world_size,
        "context_length": limits.max_total_tokens,
        "max_total_num_tokens": limits.max_batch_total_tokens,
        "max_prefill_tokens": limits.max_batch_prefill_tokens,
        "max_running_requests": limits.max_batch_size,
        "page_size": limits.block_size,
        "disable_radix_cache": config.disable_prefix_cache,
        "version": VERSION,
        "internal_states": [{"max_running_requests": limits.max_batch_size}],
    }


@functools.lru_cache(maxsize=1)
def _model_config(folder: str) -> dict[str, Any]:
    """The model's config.json, which was checked before the server started; empty without one."""
    try:
        config = orjson.loads((Path(folder) / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


async def flush_cache(request: web.Request) -> web.Response:
    """GET and POST /flush_cache, and vLLM's POST /reset_prefix_cache: empty the prefix cache, at
    once or when nothing runs any more."""
    engine = request.app[SERVICE].engine
    seconds = _timeout(request)
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not await engine.empty_cache():
        if loop.time() >= until:
            raise ApiError(
                Kind.BAD_REQUEST, "The prefix cache was not emptied: requests run or wait"
            )
        await asyncio.sleep(LOOK_SECONDS)
    return web.Response(text="The prefix cache is empty.\n")


def _timeout(request: web.Request) -> float:
    try:
        seconds = float(request.query.get("timeout", "0"))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise ApiError(
            Kind.BAD_REQUEST, f"`timeout` must be a number of seconds from 0 to {LONGEST_WAIT:.0f}"
        )
    return seconds


async def abort_request(request: web.Request) -> web.Response:
    """POST /abort_request: end the sequences of a `rid`, or all. Unknown names end nothing."""
    body = await checked(request, AbortRequest, await read_json(request))
    if body.abort_all or body.rid:
        request.app[SERVICE].engine.abort(None if body.abort_all else body.rid)
    return web.Response()


async def append_request(request: web.Request) -> web.Response:
    """POST /concate_and_append_request: nothing is to be done. The frontend announces that the
    texts of its forks follow one another, and sends all of them with what it asks for next; what
    the cache holds of them it finds by itself."""
    await checked(request, AppendRequest, await read_json(request))
    return web.Response()


async def health_generate(request: web.Request) -> web.Response:
    """GET /health_generate: 200 when a token comes, or while so much runs that none is tried."""
    service = request.app[SERVICE]
    engine = service.engine
    if unready(service):
        raise unhealthy(service)
    if service.permits.free <= 0:
        return web.Response()
    probe = Probe()
    with service.permits.take(1):
        try:
            number = engine.submit(GenerationRequest((0,), 1, priority=PROBE_PRIORITY), probe)
        except EngineError as error:
            raise from_engine(error) from error
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await probe.ended
        except TimeoutError:
            raise ApiError(Kind.UNHEALTHY, f": no token within {PROBE_SECONDS:.0f} s") from None
        except EngineError as error:
            raise ApiError(Kind.UNHEALTHY, f": {error}") from error
        finally:
            engine.cancel(number)
    return web.Response()


class Probe:
    """The listener of one token."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        """Was not asked for."""

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        return False

    def finish(self, finish: Finish) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def fail(self, error: EngineError) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
