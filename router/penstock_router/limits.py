"""The server's limits: what the operator asked for, completed from model and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_proto.shard_pb2 import InfoResponse, WarmupRequest, WarmupResponse
from penstock_router.config import RouterConfig
from penstock_router.scheduler.config import MAX_CHUNKS
from penstock_router.scheduler.costs import ON_A_CPU, USUAL, step_rows

MAX_TOP_LOGPROBS = 20  # of OpenAI's API, whatever TGI's field is limited to


class LimitError(ValueError):
    """The operator's limits contradict each other, the model or the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What the server takes, in tokens unless said otherwise."""

    max_input_tokens: int
    max_total_tokens: int
    max_batch_prefill_tokens: int
    max_batch_total_tokens: int
    max_batch_size: int  # sequences
    block_size: int
    num_blocks: int  # scratch block included
    vocab_size: int
    max_position_embeddings: int
    device: str
    device_name: str
    dtype: str
    kv_cache_dtype: str
    world_size: int
    prefill_seconds: float  # one full prefill step, as measured at start
    step_rows: tuple[int, ...] = USUAL  # of steps with prompts
    weights: str = ""  # their format
    deterministic: bool = False  # a request's tokens do not depend on what else is computed
    quantized_activations: str = ""  # in what rows meet 4-bit weights; "": as they are
    memory_used: int = 0  # bytes of all devices, once everything is allocated
    memory_total: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step holds where the operator does not say."""

    prefill_tokens: int
    sequences: int


# On CUDA TGI's default for prompts (90 ms at 8B on an H100); on a CPU steps would take seconds, and
# a prompt of 2,000 tokens takes no longer in 16 of them than in two.
CUDA, CPU = Batch(4096, 256), Batch(128, 64)
# Nobody waits for the tokens of a batch. 1,000 prompts of 512 tokens and 128 more each, 8B on an
# H200: 7,440 tokens a second with 256 sequences, 7,662 with 512.
CUDA_OFFLINE = Batch(4096, 512)


def warmup_request(config: RouterConfig, infos: Sequence[InfoResponse]) -> WarmupRequest:
    """The largest step that the limits allow."""
    positions = min(info.max_position_embeddings for info in infos)
    cuda = infos[0].device == "cuda"
    total = config.max_total_tokens or positions
    if total > positions:
        raise LimitError(
            f"`max-total-tokens` must be at most the model's max_position_embeddings, {positions}. "
            f"Given: {total}"
        )
    offline = config.offline_socket is not None
    default = (CUDA_OFFLINE if offline else CUDA) if cuda else CPU
    prefill = config.max_batch_prefill_tokens or min(default.prefill_tokens, total)
    slots = config.max_batch_size or min(default.sequences, config.max_concurrent_requests)
    return WarmupRequest(
        max_prefill_tokens=prefill,
        max_slots=slots,
        max_sequence_length=total,
        max_batch_total_tokens=config.max_batch_total_tokens or 0,
        max_top_n=max(config.max_top_n_tokens, MAX_TOP_LOGPROBS),
        max_chunks=MAX_CHUNKS,
    )


def derive(
    config: RouterConfig,
    infos: Sequence[InfoResponse],
    request: WarmupRequest,
    warmups: Sequence[WarmupResponse],
) -> ServerLimits:
    """The limits, now that it is known how many KV blocks there are."""
    if len({warmup.num_blocks for warmup in warmups}) != 1:
        raise LimitError("the shards disagree about the number of KV blocks")
    num_blocks, block_size = warmups[0].num_blocks, infos[0].block_size
    capacity = (num_blocks - 1) * block_size
    total = min(request.max_sequence_length, capacity)
    if config.max_total_tokens and config.max_total_tokens > capacity:
        raise LimitError(
            f"`max-total-tokens` must be at most the {capacity} tokens that the KV cache holds. "
            f"Given: {config.max_total_tokens}"
        )
    longest_input = config.max_input_tokens or total - 1
    if not 0 < longest_input < total:
        raise LimitError(
            f"`max-input-tokens` must be between 1 and `max-total-tokens` - 1, {total - 1}. "
            f"Given: {longest_input}"
        )
    return ServerLimits(
        max_input_tokens=longest_input,
        max_total_tokens=total,
        max_batch_prefill_tokens=_prefill_tokens(request, warmups),
        max_batch_total_tokens=capacity,
        max_batch_size=_sequences(request, warmups),
        block_size=block_size,
        num_blocks=num_blocks,
        vocab_size=infos[0].vocab_size,
        max_position_embeddings=min(info.max_position_embeddings for info in infos),
        device=infos[0].device,
        device_name=infos[0].device_name,
        dtype=infos[0].dtype,
        kv_cache_dtype=infos[0].kv_cache_dtype,
        world_size=len(infos),
        prefill_seconds=max(warmup.prefill_seconds for warmup in warmups),
        weights=infos[0].weights,
        deterministic=all(info.deterministic for info in infos),
        quantized_activations=infos[0].quantized_activations,
        memory_used=sum(warmup.memory_used for warmup in warmups),
        memory_total=sum(warmup.memory_total for warmup in warmups),
        step_rows=_step_rows(config.step_rows, infos[0].device, warmups),
    )


def _prefill_tokens(request: WarmupRequest, warmups: Sequence[WarmupResponse]) -> int:
    """A step that fits on every shard."""
    return min(warmup.max_prefill_tokens or request.max_prefill_tokens for warmup in warmups)


def _sequences(request: WarmupRequest, warmups: Sequence[WarmupResponse]) -> int:
    """As many as draw at once on every shard."""
    return min(warmup.max_slots or request.max_slots for warmup in warmups)


def _step_rows(
    given: tuple[int, ...] | None, device: str, warmups: Sequence[WarmupResponse]
) -> tuple[int, ...]:
    """The operator's sizes; of none, or a 0, those that the shards' measurements give."""
    if given and all(given):
        return tuple(sorted(given))
    return step_rows(_costs(warmups), USUAL if device == "cuda" else ON_A_CPU)


def _costs(warmups: Sequence[WarmupResponse]) -> dict[int, float]:
    """Seconds of steps by their rows: of the slowest shard."""
    found: dict[int, float] = {}
    for warmup in warmups:
        for rows, seconds in zip(warmup.cost_rows, warmup.cost_seconds, strict=True):
            found[rows] = max(found.get(rows, 0.0), seconds)
    return found
