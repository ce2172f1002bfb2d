"""Beam search by steps of one token: the prefix cache holds what the beams have in common.

A beam's score is the sum of its log-probabilities, divided by its length (of prompt and answer, an
EOS apart) to the power of `length_penalty`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.batch import Batch
from penstock.outputs import BeamSearchOutput, BeamSearchSequence, RequestError, RequestOutput
from penstock.prompts import Given, packed
from penstock.sampling_params import BeamSearchParams, SamplingParams

if TYPE_CHECKING:
    from penstock.engine import Engine


@dataclass(slots=True)
class _Search:
    """Of one prompt."""

    beams: list[BeamSearchSequence]
    priority: int
    ended: list[BeamSearchSequence] = field(default_factory=list)


def search(
    engine: Engine, given: Sequence[tuple[Given, int]], params: BeamSearchParams
) -> list[BeamSearchOutput]:
    """Search behind several prompts at once, each with its priority. Raises what `LLM.generate`
    raises."""
    tokenizer = engine.get_tokenizer()
    searches = []
    for prompt, priority in given:
        ids = prompt.token_ids() if prompt.text is None else tokenizer.encode(prompt.text)
        searches.append(_Search([BeamSearchSequence(tokens=ids)], priority))
    step = SamplingParams(
        max_tokens=1,
        temperature=params.temperature,
        logprobs=2 * params.beam_width,
        detokenize=False,
        ignore_eos=True,
    )
    ends = frozenset() if params.ignore_eos else frozenset(tokenizer.eos_token_ids)
    for _ in range(params.max_tokens):
        beams = [(beam, one.priority) for one in searches for beam in one.beams]
        if not beams:
            break
        outputs = iter(_step(engine, beams, step))
        for one in searches:
            grown = [(beam, next(outputs)) for beam in one.beams]
            _grow(one, grown, params, ends)
    for one in searches:
        one.ended += one.beams
        one.ended.sort(key=lambda beam: _score(beam, params, ends), reverse=True)
        del one.ended[params.beam_width :]
        for beam in one.ended:
            beam.text = tokenizer.decode(beam.tokens, params.skip_special_tokens)
    return [BeamSearchOutput(one.ended) for one in searches]


def _step(
    engine: Engine, beams: Sequence[tuple[BeamSearchSequence, int]], params: SamplingParams
) -> list[RequestOutput]:
    """One more token behind each beam."""
    asks = [
        engine.ask_of(place, Given(ids=packed(beam.tokens)), params, priority=priority)
        for place, (beam, priority) in enumerate(beams)
    ]
    for ask in Batch(engine.connection, asks):
        if ask.error is not None:
            raise RequestError({0: ask.error}, [None])
    return [ask.assembly.output() for ask in asks]


def _grow(
    one: _Search,
    grown: Sequence[tuple[BeamSearchSequence, RequestOutput]],
    params: BeamSearchParams,
    ends: frozenset[int],
) -> None:
    """The best of all that the beams may become; those that reach an end leave the search."""
    candidates: list[BeamSearchSequence] = []
    likely = 2 * params.beam_width  # tokens that a beam may go on with
    for beam, output in grown:
        logprobs = output.outputs[0].logprobs
        assert logprobs is not None and logprobs[0] is not None
        place = logprobs[0]
        for token, entry in place.items():
            if entry.rank is None or entry.rank > likely:  # it was drawn, and is none of them
                continue
            at_end = token in ends
            shown = not at_end or params.include_stop_str_in_output
            longer = BeamSearchSequence(
                tokens=[*beam.tokens, token] if shown else beam.tokens,
                logprobs=[*beam.logprobs, place],
                cum_logprob=beam.cum_logprob + entry.logprob,
                finish_reason="stop" if at_end else None,
                stop_reason=token if at_end else None,
            )
            (one.ended if at_end else candidates).append(longer)
    candidates.sort(key=lambda beam: _score(beam, params, ends), reverse=True)
    one.beams = candidates[: params.beam_width]


def _score(beam: BeamSearchSequence, params: BeamSearchParams, ends: frozenset[int]) -> float:
    length = len(beam.tokens) - (beam.tokens[-1] in ends)
    return float(beam.cum_logprob / length**params.length_penalty)
