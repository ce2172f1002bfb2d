"""How many prompt tokens a step takes beside the sequences that decode."""

from __future__ import annotations

from penstock_router.scheduler.config import SchedulerConfig

# A decoding batch shares its steps with prompts. Too few prompt tokens a step and the batch never
# fills; too many and all that decode wait. So a step takes a few for each decoding sequence, and
# more when much waits: that is computed within so many steps, and a long prompt within fewer where
# longer steps gain anything (`costs.STEPS_A_PROMPT`; 16 streams of 7,000 tokens, 8B on an H100:
# TTFT p50 1,261 ms before that rule, 876 with these sizes).
# What the cache holds of those that wait does not count: 31 prompts of 2,048 tokens, 2,000 of them
# cached, would be computed in one step, and streams that begin together end together, with the
# device idle until they are back (8B on an H100, 32 such streams: 3,990 tokens a second, 4,211 when
# nothing at all was drained).
# Eight for each decoding one instead of four: fewer steps that read all weights (8B on an H100, at
# its power limit: 128 streams 6,092 -> 6,182 tokens a second).
PROMPT_TOKENS_PER_DECODE = 8
STEPS_TO_DRAIN = 32
# Beyond the sizes of which rows cost least (`costs`) all cost the same: no more than are needed, in
# whole tiles.
TILE_ROWS = 256


def makes_longer_steps(config: SchedulerConfig, waiting: int) -> bool:
    """Whether so many prompt tokens that wait can make a step longer than it is in any case."""
    return waiting > STEPS_TO_DRAIN * config.cheap_rows


def prompt_budget(config: SchedulerConfig, decoding: int, unplanned: int, longest: int) -> int:
    """Prompt tokens that the next step may compute.

    decoding: sequences that decode in it. unplanned: prompt tokens that must be computed and that
    no step computes yet, of the sequences that run or wait; of those that wait without what
    the prefix cache holds. longest: tokens to compute of the longest prompt that is being computed.
    """
    most = config.max_batch_prefill_tokens
    if not decoding:
        return most
    tokens = max(
        PROMPT_TOKENS_PER_DECODE * decoding,
        unplanned // STEPS_TO_DRAIN,
        longest // config.steps_a_prompt,
    )
    least = max(tokens + decoding, config.cheap_rows)
    beyond = -(-least // TILE_ROWS) * TILE_ROWS
    rows = next((rows for rows in config.step_rows if rows >= least), beyond)
    return min(most, rows - decoding)
