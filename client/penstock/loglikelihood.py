"""How likely given texts are behind prompts, as evaluations ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.batch import Ask
from penstock.outputs import LogLikelihood, Logprobs
from penstock.prompts import packed, sendable
from penstock.sampling_params import SamplingParams
from penstock_proto.offline_pb2 import Prompt

if TYPE_CHECKING:
    from penstock.engine import Engine

PARAMS = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)


def scored(
    engine: Engine, place: int, prompt: str | Sequence[int], continuation: str | Sequence[int]
) -> Ask:
    """A prompt whose continuation is given."""
    message = Prompt()
    if isinstance(prompt, str):
        message.text = sendable(prompt, place)
    else:
        message.ids = packed(prompt, place)
    if isinstance(continuation, str):
        message.text_scored = sendable(continuation, place)
    else:
        message.ids_scored = packed(continuation, place)
    return engine.ask(place, message, PARAMS, prompt=None)


def likelihood(ask: Ask) -> LogLikelihood:
    """Of the tokens that were scored."""
    ids, scores = ask.assembly.prompt_ids, ask.assembly.prompt_logprobs
    assert scores is not None
    rows: list[tuple[int, Logprobs]] = [
        (token, place) for token, place in zip(ids, scores, strict=True) if place is not None
    ]
    total = sum(place[token].logprob for token, place in rows)
    return LogLikelihood(total, all(place[token].rank == 1 for token, place in rows))
