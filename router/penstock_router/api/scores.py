"""How many log-probabilities of prompts one request may ask for.

Each is some 40 bytes of the answer. A prompt of 100,000 tokens with 276 others in place of each
came to gigabytes, and all of them to one turn of the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock_router.api.errors import invalid
from penstock_router.request import GenerationRequest

MOST_SCORES = 1 << 20
MOST_STREAMED = 16_384  # of a stream whose events repeat them


def scores_of(requests: Iterable[GenerationRequest]) -> int:
    """Log-probabilities of prompts that these ask for."""
    return sum(
        (len(one.prompt) - one.prompt_logprobs_start)
        * (1 + one.prompt_top_n + len(one.sampling.given))
        for one in requests
        if one.prompt_logprobs
    )


def check_scores(requests: Iterable[GenerationRequest], most: int = MOST_SCORES) -> int:
    """How many. Raises ApiError where they are too many together."""
    count = scores_of(requests)
    if count > most:
        raise invalid(
            f"a request may ask for at most {most} log-probabilities of prompts, those of other "
            f"tokens in place of theirs included. Given: {count}"
        )
    return count
