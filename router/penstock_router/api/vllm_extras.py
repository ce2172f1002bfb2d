"""What vLLM's fields add to answers of OpenAI's routes: token ids, and prompts' log-probabilities.

Plain completions have them in each choice; chat has those of the prompt beside the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from penstock_router.api.leaving_turns import leaving_turns
from penstock_router.api.logprobs import PLACES, number
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_request import OpenAIRequest
from penstock_router.api.sequence_group import Collector
from penstock_router.request import TopTokens
from penstock_router.text import TextModel


def beside_choices(
    text: TextModel, body: OpenAIRequest, listeners: Sequence[Collector]
) -> dict[str, Any]:
    """Fields of a whole chat answer."""
    return _of_prompt(text, body, listeners[0]) if isinstance(body, ChatRequest) else {}


def in_choice(text: TextModel, body: OpenAIRequest, listener: Collector) -> dict[str, Any]:
    """Fields of a choice of a whole answer."""
    shown: dict[str, Any] = {"stop_reason": listener.output.stop_reason}
    if not isinstance(body, ChatRequest):
        shown |= _of_prompt(text, body, listener)
    if body.return_token_ids:
        shown["token_ids"] = listener.ids
    return shown


def _of_prompt(text: TextModel, body: OpenAIRequest, listener: Collector) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if body.prompt_logprobs is not None:
        shown["prompt_logprobs"] = prompt_logprobs(text, listener, body.prompt_logprobs)
    if body.return_token_ids:
        shown["prompt_token_ids"] = list(listener.request.prompt)
    return shown


def prompt_logprobs(
    text: TextModel, listener: Collector, count: int
) -> list[orjson.Fragment | None]:
    """For each token of the prompt but the first: it and the `count` most likely ones by their ids.

    `rank` is 1 + the number of tokens that are more likely; among the most likely, their place.
    """
    rows = zip(
        listener.request.prompt,
        listener.prompt_logprobs,
        listener.prompt_tops or [()] * len(listener.prompt_logprobs),
        listener.prompt_ranks,
        strict=True,
    )
    return [
        None if logprob is None else _place(text, token_id, logprob, rank, top[:count])
        for token_id, logprob, top, rank in leaving_turns(rows, PLACES)
    ]


def _place(
    text: TextModel, token_id: int, logprob: float, own: int, top: TopTokens
) -> orjson.Fragment:
    """As JSON: all places at once would hold the interpreter's lock for long."""
    ranked = {token: (value, rank) for rank, (token, value) in enumerate(top, 1)}
    values = {token_id: (logprob, own), **ranked}
    shown = {
        str(token): {
            "logprob": number(value),
            "rank": rank,
            "decoded_token": text.token_text(token),
        }
        for token, (value, rank) in values.items()
    }
    return orjson.Fragment(orjson.dumps(shown))
