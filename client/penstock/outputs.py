"""What comes back, in vLLM's shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload


@dataclass(slots=True)
class Logprob:
    """Of one token in one place: the model's own, before temperature, penalties and filters."""

    logprob: float
    rank: int | None = None  # 1: the most likely one; None: only asked for by its id
    decoded_token: str | None = None


Logprobs = dict[int, Logprob]  # token id -> its log-probability, in one place


class FlatLogprobs(Sequence[Logprobs | None]):
    """The same of consecutive places in five lists, which take a tenth of the memory; what stands
    in a place is made a dict when it is looked at."""

    def __init__(self) -> None:
        self.start_indices: list[int] = []
        self.end_indices: list[int] = []
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.ranks: list[int | None] = []
        self.decoded_tokens: list[str | None] = []

    def append(self, place: Logprobs | None) -> None:
        """One more place; None: it has none."""
        self.start_indices.append(len(self.token_ids))
        for token, entry in (place or {}).items():
            self.token_ids.append(token)
            self.logprobs.append(entry.logprob)
            self.ranks.append(entry.rank)
            self.decoded_tokens.append(entry.decoded_token)
        self.end_indices.append(len(self.token_ids))

    def __len__(self) -> int:
        return len(self.start_indices)

    @overload
    def __getitem__(self, place: int) -> Logprobs | None: ...

    @overload
    def __getitem__(self, place: slice) -> list[Logprobs | None]: ...

    def __getitem__(self, place: int | slice) -> Logprobs | None | list[Logprobs | None]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        rows = range(self.start_indices[place], self.end_indices[place])
        if not rows:
            return None
        return {
            self.token_ids[row]: Logprob(
                self.logprobs[row], self.ranks[row], self.decoded_tokens[row]
            )
            for row in rows
        }

    def __iter__(self) -> Iterator[Logprobs | None]:
        return (self[place] for place in range(len(self)))


@dataclass(slots=True)
class CompletionOutput:
    """One continuation of a prompt."""

    index: int
    text: str
    token_ids: Sequence[int]  # EOS, or what else ended it, included
    cumulative_logprob: float | None = None  # where log-probabilities were asked for
    logprobs: Sequence[Logprobs | None] | None = None  # one a token
    finish_reason: str | None = None  # "stop" or "length"; None: it goes on
    stop_reason: int | str | None = None  # the stop token or sequence; None: EOS
    lora_request: Any = None
    # what is never reported here
    routed_experts: Any = None
    sampling_mask: Any = None
    spec_decode_metrics: Any = None
    weight_versions: Any = None

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """Seconds since the router queued the prompt's last sequence."""

    queue: float = 0.0  # until its first chunk was planned
    first_token: float = 0.0
    total: float = 0.0


@dataclass(slots=True)
class RequestOutput:
    """What became of a prompt."""

    request_id: str
    prompt: str | None  # None where token ids were given
    prompt_token_ids: Sequence[int]
    prompt_logprobs: Sequence[Logprobs | None] | None = None  # one a token, the first None
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = False
    metrics: RequestMetrics | None = None
    lora_request: Any = None
    encoder_prompt: str | None = None
    encoder_prompt_token_ids: Sequence[int] | None = None
    num_cached_tokens: int | None = None  # prompt tokens that the prefix cache had
    num_cache_creation_tokens: int | None = None  # never reported
    kv_transfer_params: Any = None


@dataclass(slots=True)
class BeamSearchSequence:
    """One beam."""

    tokens: list[int]  # the prompt's and those that were found
    logprobs: list[Logprobs] = field(default_factory=list)  # of those that were found
    cum_logprob: float = 0.0
    text: str | None = None  # of all tokens
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = None


@dataclass(slots=True)
class BeamSearchOutput:
    """The best beams of a prompt, best first."""

    sequences: list[BeamSearchSequence]


class LogLikelihood(NamedTuple):
    """Of a continuation behind a prompt."""

    logprob: float  # the sum over its tokens
    is_greedy: bool  # in no place is another more likely


class GenerationError(RuntimeError):
    """A prompt was taken, and could not be answered to its end."""


class RequestError(ValueError):
    """Some prompts of a call could not be answered; the others were.

    errors: what each raised, by its place. outputs: those of all prompts in order, None in the
    places that failed.
    """

    def __init__(self, errors: dict[int, Exception], outputs: list[Any]) -> None:
        place = min(errors)
        others = f" ({len(errors) - 1} more failed: see errors)" if len(errors) > 1 else ""
        where = f"prompt {place}: " if len(outputs) > 1 else ""
        super().__init__(f"{where}{errors[place]}{others}")
        self.errors = errors
        self.outputs = outputs
