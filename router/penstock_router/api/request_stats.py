"""What a request took, and how its answer says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_router.api.sequence_group import SequenceListener
from penstock_router.request import Finish


@dataclass(frozen=True, slots=True)
class RequestStats:
    """What a request took. Times are seconds; those of the slowest of several sequences."""

    total: float
    validation: float
    queue: float
    inference: float
    per_token: float
    prompt_tokens: int  # every prompt once
    cached_tokens: int
    generated_tokens: int

    @classmethod
    def of(
        cls, listeners: Sequence[SequenceListener], total: float, validation: float
    ) -> RequestStats:
        """Of the sequences of one request, which have ended."""
        ends = [listener.end for listener in listeners]
        prompts = {id(one.request.prompt): len(one.request.prompt) for one in listeners}
        return cls(
            total=total,
            validation=validation,
            queue=max(end.queue_seconds for end in ends),
            inference=max(end.total_seconds - end.queue_seconds for end in ends),
            per_token=max(map(seconds_per_token, ends)),
            prompt_tokens=sum(prompts.values()),
            cached_tokens=sum(end.cached_tokens for end in ends),
            generated_tokens=sum(end.generated_tokens for end in ends),
        )

    def headers(self) -> dict[str, str]:
        """The same as headers of an answer that is sent at once."""
        return {
            "x-compute-time": f"{self.total:.6f}",
            "x-total-time": _milliseconds(self.total),
            "x-validation-time": _milliseconds(self.validation),
            "x-queue-time": _milliseconds(self.queue),
            "x-inference-time": _milliseconds(self.inference),
            "x-time-per-token": _milliseconds(self.per_token),
            "x-prompt-tokens": str(self.prompt_tokens),
            "x-cached-tokens": str(self.cached_tokens),
            "x-generated-tokens": str(self.generated_tokens),
        }


def seconds_per_token(end: Finish) -> float:
    """Of one sequence, without its time in the queue."""
    return (end.total_seconds - end.queue_seconds) / max(end.generated_tokens, 1)


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
