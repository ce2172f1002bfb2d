"""The largest step of a server that takes a program's batches."""

from __future__ import annotations

import dataclasses

import pytest

from penstock_proto.shard_pb2 import InfoResponse, WarmupResponse
from penstock_router.limits import derive, warmup_request
from router.api.conftest import CONFIG


@pytest.mark.parametrize(
    ("device", "socket", "changes", "step"),
    [
        ("cuda", None, {}, (4096, 256)),
        ("cuda", "/x", {}, (4096, 512)),
        ("cpu", "/x", {}, (128, 64)),
        ("cuda", "/x", {"max_batch_size": 7, "max_batch_prefill_tokens": 100}, (100, 7)),
        ("cuda", "/x", {"max_concurrent_requests": 100}, (4096, 100)),
        ("cuda", "/x", {"max_total_tokens": 50}, (50, 512)),
    ],
)
def test_the_largest_step(
    device: str, socket: str | None, changes: dict[str, int], step: tuple[int, int]
) -> None:
    fields = {"max_concurrent_requests": 1000, "offline_socket": socket, **changes}
    config = dataclasses.replace(CONFIG, **fields)  # type: ignore[arg-type]
    request = warmup_request(config, [InfoResponse(device=device, max_position_embeddings=8192)])
    assert (request.max_prefill_tokens, request.max_slots) == step


def test_steps_that_memory_makes_smaller() -> None:
    """Those of the shard that has least room; what is asked for where nothing is said."""
    config = dataclasses.replace(CONFIG, max_concurrent_requests=1000)
    infos = [InfoResponse(device="cuda", max_position_embeddings=8192, block_size=64)] * 2
    request = warmup_request(config, infos)
    small = WarmupResponse(num_blocks=100, max_prefill_tokens=512, max_slots=128)
    large = WarmupResponse(num_blocks=100, max_prefill_tokens=1024)
    limits = derive(config, infos, request, [large, small])
    assert (limits.max_batch_prefill_tokens, limits.max_batch_size) == (512, 128)
    limits = derive(config, infos, request, [large, large])
    assert (limits.max_batch_prefill_tokens, limits.max_batch_size) == (1024, request.max_slots)
