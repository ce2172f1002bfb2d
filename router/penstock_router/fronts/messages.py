"""What becomes of requests as messages, and back.

Each pair of functions says the same in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from penstock_proto.front_pb2 import End, Failure, ScoredPrompt
from penstock_router.request import (
    Aborted,
    BadGrammar,
    Draining,
    EngineError,
    Finish,
    FinishReason,
    GenerationFailed,
    GrammarsBusy,
    ShuttingDown,
    TopTokens,
)
from penstock_router.top_table import TopTable

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
    Failure.ABORTED: Aborted,
    Failure.GRAMMAR: BadGrammar,
    Failure.BUSY: GrammarsBusy,
}
ERROR_NUMBERS = {error: number for number, error in ERRORS.items()}


def scored_prompt(
    sequence: int,
    logprobs: Sequence[float | None],
    tops: Sequence[TopTokens],
    ranks: Sequence[int],
) -> ScoredPrompt:
    """Log-probabilities of a prompt, as a listener is told of them."""
    values = [math.nan if value is None else value for value in logprobs]
    table = TopTable.of(tops)
    return ScoredPrompt(
        sequence=sequence,
        logprob=values,
        top_token=table.tokens,
        top_logprob=table.logprobs,
        rank=ranks,
    )


def scores_of(
    message: ScoredPrompt,
) -> tuple[list[float | None], Sequence[TopTokens], list[int]]:
    """What a listener is told of a prompt."""
    logprobs = [None if math.isnan(value) else value for value in message.logprob]
    ranks = list(message.rank)
    if not message.top_token:
        return logprobs, [], ranks
    without = next(place for place, value in enumerate(logprobs) if value is not None)
    tops = TopTable(without)
    width = len(message.top_token) // (len(logprobs) - without) // 4
    tops.extend(message.top_token, message.top_logprob, width)
    return logprobs, tops, ranks


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
