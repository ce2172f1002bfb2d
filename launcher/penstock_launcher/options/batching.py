"""What a step computes, and who waits."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import COUNT, TOKENS, integer, number, sizes
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Batching:
    max_concurrent_requests: int = option(
        128,
        COUNT,
        "Sequences accepted at a time: one a prompt, times `n` or `best_of`; beyond: 429 at once",
    )
    max_batch_size: int | None = option(
        None,
        COUNT,
        "Most sequences in a step",
        default_text="max-concurrent-requests, at most 256 on CUDA, 512 with offline-socket, 64 "
        "on a CPU",
    )
    max_batch_total_tokens: int | None = option(
        None,
        TOKENS,
        "Most tokens in the KV cache at a time",
        default_text="what memory holds, measured at start",
    )
    max_batch_prefill_tokens: int | None = option(
        None,
        TOKENS,
        "Most prompt tokens computed in one step",
        default_text="4096 on CUDA, 128 on a CPU",
    )
    step_rows: tuple[int, ...] | None = option(
        None,
        sizes(100_000),
        "Rows that steps with prompts have, decoding sequences included: the least that holds what "
        "a step should compute. The first is what prompts get beside a running batch without "
        "waiting for their turn. By default those of which a row costs least, so that plans may "
        "differ from start to start. 0: the same",
        default_text="measured at start; 384,1152,2048 without graphs, 64,128 on a CPU",
    )
    waiting_served_ratio: float = option(
        0.3,
        number(0, 1_000_000),
        "Prompts are served before running requests go on once waiting / running exceeds this",
    )
    max_waiting_tokens: int = option(
        20, integer(0, 1_000_000), "Decode steps after which waiting requests are served anyway"
    )
