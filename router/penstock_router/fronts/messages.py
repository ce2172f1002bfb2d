"""Requests and what becomes of them as messages, and back.

Each pair of functions says the same in both directions.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from penstock_proto.front_pb2 import End, Failure, ScoredPrompt, Submission
from penstock_router.grammars import grammar_of, wire_grammar
from penstock_router.request import (
    BadGrammar,
    Draining,
    EngineError,
    Finish,
    FinishReason,
    GenerationFailed,
    GenerationRequest,
    GrammarsBusy,
    ShuttingDown,
    TopTokens,
)
from penstock_router.wire import sampling_of, top_lists, wire_sampling

REASONS = {
    End.LENGTH: FinishReason.LENGTH,
    End.EOS: FinishReason.EOS,
    End.STOP: FinishReason.STOP,
}
REASON_NUMBERS = {reason: number for number, reason in REASONS.items()}

ERRORS: dict[Failure.Kind, type[EngineError]] = {
    Failure.GENERATION: GenerationFailed,
    Failure.DRAINING: Draining,
    Failure.SHUT_DOWN: ShuttingDown,
    Failure.GRAMMAR: BadGrammar,
    Failure.BUSY: GrammarsBusy,
}
ERROR_NUMBERS = {error: number for number, error in ERRORS.items()}


def submission(sequence: int, request: GenerationRequest) -> Submission:
    """A request, under the number that its front gave it."""
    prompt = request.prompt
    ids: array[int] = prompt if isinstance(prompt, array) else array("I", prompt)
    return Submission(
        sequence=sequence,
        prompt=ids.tobytes(),
        max_new_tokens=request.max_new_tokens,
        sampling=wire_sampling(request.sampling),
        ignore_eos=request.ignore_eos,
        prompt_logprobs=request.prompt_logprobs,
        prompt_top_n=request.prompt_top_n,
        max_time=request.max_time or 0.0,
        priority=request.priority,
        tenant=request.tenant,
        grammar=None if request.grammar is None else wire_grammar(request.grammar),
    )


def request_of(message: Submission) -> GenerationRequest:
    """The request in a submission."""
    return GenerationRequest(
        prompt=array("I", message.prompt),
        max_new_tokens=message.max_new_tokens,
        sampling=sampling_of(message.sampling),
        ignore_eos=message.ignore_eos,
        prompt_logprobs=message.prompt_logprobs,
        prompt_top_n=message.prompt_top_n,
        max_time=message.max_time or None,
        priority=message.priority,
        tenant=message.tenant,
        grammar=grammar_of(message.grammar) if message.HasField("grammar") else None,
    )


def scored_prompt(
    sequence: int, logprobs: Sequence[float | None], tops: Sequence[TopTokens]
) -> ScoredPrompt:
    """Log-probabilities of a prompt, as a listener is told of them."""
    values = [math.nan if value is None else value for value in logprobs]
    likely = [pair for top in tops for pair in top]
    return ScoredPrompt(
        sequence=sequence,
        logprob=values,
        top_token=[token for token, _ in likely],
        top_logprob=[value for _, value in likely],
    )


def scores_of(message: ScoredPrompt) -> tuple[list[float | None], list[TopTokens]]:
    """What a listener is told of a prompt."""
    logprobs = [None if math.isnan(value) else value for value in message.logprob]
    if not message.top_token:
        return logprobs, []
    places = len(logprobs) - 1
    tops = top_lists(message.top_token, message.top_logprob, len(message.top_token) // places)
    return logprobs, [(), *tops]


def end(sequence: int, finish: Finish) -> End:
    """The end of a sequence as its request asked."""
    return End(
        sequence=sequence,
        reason=REASON_NUMBERS[finish.reason],
        generated=finish.generated_tokens,
        cached=finish.cached_tokens,
        queue=finish.queue_seconds,
        first_token=finish.first_token_seconds,
        total=finish.total_seconds,
    )


def finish_of(message: End) -> Finish:
    """What a listener is told of it."""
    return Finish(
        reason=REASONS[message.reason],
        generated_tokens=message.generated,
        cached_tokens=message.cached,
        queue_seconds=message.queue,
        first_token_seconds=message.first_token,
        total_seconds=message.total,
    )


def failure(sequence: int, error: EngineError) -> Failure:
    """The end of a sequence that was not finished, or not even taken."""
    kind = ERROR_NUMBERS.get(type(error), Failure.GENERATION)
    return Failure(sequence=sequence, kind=kind, message=str(error))


def error_of(message: Failure) -> EngineError:
    """What a listener is told of it."""
    return ERRORS[message.kind](message.message)
