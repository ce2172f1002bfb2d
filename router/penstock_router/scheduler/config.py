"""Budgets and sizes that the scheduler keeps to."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_router.scheduler.costs import STEPS_A_PROMPT, USUAL
from penstock_router.scheduler.sharing import WORTH_TOKENS

MAX_CHUNKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Budgets and sizes. Invariant: one sequence of the largest length fits into the blocks."""

    num_blocks: int  # block 0 included, which is never lent
    block_size: int
    max_batch_size: int  # sequences at once: slots
    max_batch_prefill_tokens: int  # prompt tokens a step
    max_waiting_tokens: int  # decode steps after which the queue is served whatever the ratio says
    waiting_served_ratio: float  # waiting over running sequences from which the queue is served
    eos_token_ids: frozenset[int] = frozenset()
    # Rows of a step up to which prompt tokens are cheap, because the weights are read anyway: they
    # wait for nobody.
    cheap_rows: int = USUAL[0]
    step_rows: tuple[int, ...] = USUAL  # of which each costs least, ascending
    steps_a_prompt: int = STEPS_A_PROMPT["cuda"]
    prefix_cache: bool = True
    # The shards are told which sequences share blocks where so many reads of a token are saved;
    # None: they are not told.
    shared_reads: int | None = WORTH_TOKENS
    # Prompts travel whole, also what is cached of them: 4 MiB a command, of the 16 or more that the
    # shards take. A longer one is admitted alone.
    max_admitted_tokens: int = 1 << 20
    # No prompt begins in a step of so many chunks: the shards' graphs have room for these, and for
    # more where rows are many. 128 times a prompt that is cached but for its last token took a
    # graph of 2,048 rows, 192 times one of 4,096.
    max_chunks: int = MAX_CHUNKS
    # Runs of tokens that grammars force are computed as chunks, and leave a quarter of a step's
    # chunks to prompts. A chunk's attention reads all of its sequence's context in as many programs
    # as there are KV heads, so behind a long one a run costs more than the steps that it saves.
    forced_runs: bool = True
    most_runs: int = 48
    longest_run_context: int = 4096  # tokens
    max_repeat: int = 8  # decode steps that one command may grant
    # What a command that grants several steps may take. Two are under way: with 4 ms an arrival
    # among 8 streams of 1.3 ms a step had its first token 2.2 ms later, for 10 us less a token.
    grant_seconds: float = 0.002
