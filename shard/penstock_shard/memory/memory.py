"""How many blocks the KV cache gets, and what the memory of a rank went for."""

from __future__ import annotations

import torch

from penstock_proto import shard_pb2
from penstock_shard.memory import kv_cache
from penstock_shard.memory.kv_cache import Shares
from penstock_shard.memory.peak import held_bytes, settled_bytes
from penstock_shard.ranks.agreement import NoMemory
from penstock_shard.ranks.parallel import Group
from penstock_shard.weights.loaded_model import LoadedModel


def blocks_of(loaded: LoadedModel, tokens: int) -> int:
    """Blocks that so many tokens of one sequence take."""
    return -(-tokens // loaded.block_size)


def block_bytes(loaded: LoadedModel) -> int:
    """Of this rank's part of a block."""
    return loaded.block_size * kv_cache.bytes_per_token(loaded.decoder)


def count_blocks(
    loaded: LoadedModel, request: shard_pb2.WarmupRequest, free: int
) -> tuple[int, str | None]:
    """Blocks of this rank's cache, the scratch block included, and why it does not fit.

    free: bytes that the cache may have.
    """
    size, free = block_bytes(loaded), max(0, free)
    if request.max_batch_total_tokens:
        option = f"--max-batch-total-tokens {request.max_batch_total_tokens}"
        blocks = blocks_of(loaded, request.max_batch_total_tokens) + 1
    elif loaded.shares.kv_cache:
        option = f"--kv-cache-memory {loaded.shares.kv_cache}"
        blocks = loaded.shares.kv_cache // size
    else:
        most = request.max_slots * blocks_of(loaded, request.max_sequence_length) + 1
        return min(most, int(free * _share(loaded)) // size), None
    if blocks * size <= free:
        return blocks, None
    return 0, (
        f"{option} needs {blocks * size >> 20} MiB of KV cache, but only {free >> 20} MiB "
        "are free: lower it or --max-batch-prefill-tokens"
    )


def fixed_cache(loaded: LoadedModel, request: shard_pb2.WarmupRequest) -> bool:
    """Whether the operator has said how large the cache is."""
    return bool(request.max_batch_total_tokens or loaded.shares.kv_cache)


def _share(loaded: LoadedModel) -> float:
    """Of what is free. The operator may have said what others need."""
    left = loaded.shares.leave_free is not None
    return 1.0 if left or loaded.device.type == "cuda" else kv_cache.CPU_SHARE


def too_small(loaded: LoadedModel) -> str:
    """The sentence about this rank's cache that holds nothing."""
    advice, others = _what_to_change(loaded), _others(loaded.device)
    return f"the KV cache holds no block of {loaded.block_size} tokens: {advice}{others}"


def _what_to_change(loaded: LoadedModel) -> str:
    """The option by which the operator made it small, or those that make a step smaller."""
    shares = loaded.shares
    if shares.kv_cache:
        least = 2 * block_bytes(loaded)  # the scratch block is one
        return f"raise --kv-cache-memory {shares.kv_cache} to {least} at least"
    if shares.leave_free:
        return f"lower --leave-free {shares.leave_free}"
    if shares.fraction < 1 and loaded.device.type == "cuda":
        return f"raise --cuda-memory-fraction {shares.fraction:g}"
    return "lower --max-batch-prefill-tokens or --max-batch-size"


def _others(device: torch.device) -> str:
    """What stands on a GPU beside this process's tensors, which may be the reason."""
    if device.type != "cuda":
        return ""
    used, total = kv_cache.used_bytes(device), kv_cache.total_bytes(device, 1)
    beside = max(0, used - held_bytes(device)) >> 20
    return (
        f"; CUDA's own and other processes' memory is {beside} of the GPU's {total >> 20} MiB: "
        "nvidia-smi shows whose"
    )


def check_left(group: Group, device: torch.device, shares: Shares, needed: int) -> None:
    """Raises NoMemory on every rank where what is really free on one, once everything is allocated,
    leaves no room for so many bytes. A collective."""
    if device.type != "cuda":
        return
    torch.cuda.empty_cache()
    left = kv_cache.left_bytes(device, shares)
    if group.minimum(left - needed, device) < 0:
        raise NoMemory(f"{left >> 20} MiB are left, and a step takes {needed >> 20}")


def ledger(loaded: LoadedModel, cache: int, workspace: int, graphs: int) -> dict[str, int]:
    """Bytes of this rank's memory by what they are for.

    cache: of the KV cache. On CUDA the parts add up to all there is: `workspace` is the most that
    steps and draws take, which is free while none runs; `graphs` what capturing them added; `other`
    what else is in use: the context, libraries, kernels, the state of slots, other processes;
    `free` what nobody is going to use.
    """
    parts = {"weights": loaded.decoder.nbytes, "kv_cache": cache}
    if loaded.device.type == "cuda":
        used = settled_bytes(loaded.device)
        left = kv_cache.total_bytes(loaded.device, 1) - used
        other = used - sum(parts.values()) - graphs
        parts |= {"workspace": min(workspace, left), "graphs": graphs, "other": max(0, other)}
        parts["free"] = left - parts["workspace"]
    return parts
