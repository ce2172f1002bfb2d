"""How many log-probabilities one request may ask for.

Each is some 25 bytes of the answer, or 40. A prompt of 100,000 tokens with 276 others in place of
each came to gigabytes, and all of them to one turn of the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock_router.api.errors import invalid
from penstock_router.request import GenerationRequest

MOST_SCORES = 1 << 20
MOST_STREAMED = 32_768  # where every event of a stream repeats those before it


def check_scores(requests: Iterable[GenerationRequest], repeated: bool = False) -> None:
    """Raises ApiError where they are too many together. repeated: with each token of a stream, so
    that those of its tokens count as those of its prompts do."""
    most = MOST_STREAMED if repeated else MOST_SCORES
    if (count := sum(_scores(one, repeated) for one in requests)) > most:
        what = "log-probabilities in a stream" if repeated else "log-probabilities of prompts"
        raise invalid(
            f"a request may ask for at most {most} {what}, those of other tokens in place of "
            f"each included. Given: {count}"
        )


def _scores(request: GenerationRequest, repeated: bool) -> int:
    """Of the answer only those of tokens that the client names: there may be very many of them."""
    sampling = request.sampling
    given = len(sampling.given)
    count = request.max_new_tokens * given
    if repeated and sampling.logprobs:
        count += request.max_new_tokens * (1 + sampling.top_n)
    if request.prompt_logprobs:
        places = len(request.prompt) - request.prompt_logprobs_start
        count += places * (1 + request.prompt_top_n + given)
    return count
