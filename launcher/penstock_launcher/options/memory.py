"""How much memory the KV cache gets, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import integer, number, one_of, switch
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Memory:
    cuda_memory_fraction: float = option(
        1.0, number(0, 1, above=True), "Share of each GPU's memory that a shard may take"
    )
    leave_free: int | None = option(
        None,
        integer(0, 10**15, "bytes"),
        "Bytes that stay free on each GPU, whatever --cuda-memory-fraction says; on a CPU of the "
        "host's memory, of which the KV cache may then take all the rest",
        default_text="0; on a CPU three quarters",
    )
    kv_cache_memory: int | None = option(
        None,
        integer(1, 10**15, "bytes"),
        "Bytes of each shard's KV cache, in place of what is left; an error where they are not "
        "free. Excludes --max-batch-total-tokens",
        default_text="what is left",
    )
    kv_cache_dtype: str = option(
        "auto",
        one_of("auto", "fp8_e4m3fn", "fp8_e5m2", "fp8", "fp8_e4m3"),
        "Type of the KV cache. FP8 holds twice as many tokens, with the scales of the checkpoint "
        "where it has any. fp8 and fp8_e4m3 are fp8_e4m3fn. auto: the type of the weights, or what "
        "the checkpoint's quantization_config says",
    )
    kv_block_size: int | None = option(
        None,
        integer(1, 1024),
        "Tokens in a block of the KV cache",
        default_text="64 on CUDA, 16 on a CPU",
    )
    disable_prefix_cache: bool = option(
        False, switch(), "Compute every prompt anew instead of reusing the KV of equal prefixes"
    )
    disable_shared_reads: bool = option(
        False,
        switch(),
        "Let attention read the KV of a shared prefix once for each sequence of a batch, not once "
        "for a few of them",
    )
