"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_launcher.kinds import COUNT, TOKENS, integer, number, switch
from penstock_launcher.options.option import option


@dataclass(frozen=True, kw_only=True)
class Limits:
    max_input_tokens: int | None = option(
        None,
        TOKENS,
        "Longest prompt in tokens; a longer one is refused with 422",
        default_text="max-total-tokens - 1",
    )
    max_input_length: int | None = option(
        None, TOKENS, "Older name of max-input-tokens; giving both is an error"
    )
    max_total_tokens: int | None = option(
        None,
        TOKENS,
        "Most tokens of prompt and answer together; more is refused with 422",
        default_text="the model's context, if the KV cache holds it",
    )
    max_request_time: float | None = option(
        None,
        number(0, 1_000_000, above=True),
        "Seconds that a request may take, the queue included; then it ends with an error (504). A "
        "client may ask for less, by the field `timeout` or the header x-request-timeout",
        default_text="any",
    )
    max_best_of: int = option(2, COUNT, "Largest `best_of` of a request; `n` may be 128")
    max_stop_sequences: int = option(
        4, COUNT, "Most stop sequences of a request; under /v1 16 in any case"
    )
    max_top_n_tokens: int = option(
        5, integer(0, 1000), "Largest `top_n_tokens` of a request; `top_logprobs` may be 20"
    )
    max_client_batch_size: int = option(
        4, COUNT, "Most instances in one call of /vertex; prompts of /v1/completions may be 128"
    )
    payload_limit: int = option(
        2_000_000, integer(1, 2_000_000_000, "bytes"), "Largest request body in bytes; beyond: 413"
    )
    strict_requests: bool = option(
        False,
        switch(),
        "Refuse requests with unknown fields (422) instead of ignoring these and naming them in "
        "the header x-ignored-fields",
    )
