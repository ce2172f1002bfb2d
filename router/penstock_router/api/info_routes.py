"""Routes that tell about the server: /info, /v1/models, /health, /metrics."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from penstock_router.api.probes import unhealthy, unready
from penstock_router.api.service import SERVICE, VERSION, Service
from penstock_router.api.tgi_routes import json_response
from penstock_router.exposition import CONTENT_TYPE


async def info(request: web.Request) -> web.Response:
    """GET /info: the model and the limits, under TGI's names and then ours."""
    service = request.app[SERVICE]
    config, limits = service.config, service.engine.limits
    return json_response(
        {
            "model_id": config.model_id,
            "model_sha": config.model_sha,
            "model_dtype": limits.dtype,
            "model_device_type": limits.device,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": config.max_concurrent_requests,
            "max_best_of": config.max_best_of,
            "max_stop_sequences": config.max_stop_sequences,
            "max_top_n_tokens": config.max_top_n_tokens,
            "max_input_tokens": limits.max_input_tokens,
            "max_total_tokens": limits.max_total_tokens,
            "waiting_served_ratio": config.waiting_served_ratio,
            "max_batch_prefill_tokens": limits.max_batch_prefill_tokens,
            "max_batch_total_tokens": limits.max_batch_total_tokens,
            "step_rows": limits.step_rows,
            "max_waiting_tokens": config.max_waiting_tokens,
            "max_batch_size": limits.max_batch_size,
            "validation_workers": config.validation_workers,
            "max_client_batch_size": config.max_client_batch_size,
            "router": "penstock-router",
            "version": VERSION,
            "sha": None,
            "docker_label": None,
            "served_model_name": service.model_name,
            "device_name": limits.device_name,
            "weights": limits.weights,
            "quantized_activations": limits.quantized_activations or None,
            "deterministic": limits.deterministic,
            "memory_used": limits.memory_used,
            "memory_total": limits.memory_total,
            "num_shard": limits.world_size,
            "kv_cache_dtype": limits.kv_cache_dtype,
            "kv_block_size": limits.block_size,
            "kv_blocks": limits.num_blocks,
            "vocab_size": limits.vocab_size,
            "max_position_embeddings": limits.max_position_embeddings,
            "prefix_cache": not config.disable_prefix_cache,
            "shared_reads": not config.disable_shared_reads,
            "generation_config": config.generation_config,
            "sampling_defaults": service.sampling_defaults,
        }
    )


async def version(request: web.Request) -> web.Response:
    """GET /version, as vLLM has it."""
    return json_response({"version": VERSION})


async def load(request: web.Request) -> web.Response:
    """GET /load, as vLLM has it: the sequences that run or wait, of all clients."""
    service = request.app[SERVICE]
    held = service.config.max_concurrent_requests - service.permits.free
    return json_response({"server_load": held})


async def models(request: web.Request) -> web.Response:
    """GET /v1/models: the model under each of its names."""
    service = request.app[SERVICE]
    return json_response(
        {"object": "list", "data": [_model(service, name) for name in service.model_names]}
    )


async def model(request: web.Request) -> web.Response:
    """GET /v1/models/{id}"""
    service = request.app[SERVICE]
    name = request.match_info["id"]
    if name not in service.model_names:
        raise service.no_model(name)
    return json_response(_model(service, name))


def _model(service: Service, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": name,
        "root": service.config.model_id,
        "max_model_len": service.engine.limits.max_total_tokens,
    }


async def health(request: web.Request) -> web.Response:
    """GET /health, /ping and /: 200 while the server takes requests and the shards answer."""
    service = request.app[SERVICE]
    if unready(service):
        raise unhealthy(service)
    return web.Response()


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics"""
    body = await request.app[SERVICE].metrics.scrape()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
