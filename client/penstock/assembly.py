"""From the messages about one prompt to what a program gets of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from penstock.outputs import (
    CompletionOutput,
    FlatLogprobs,
    Logprob,
    Logprobs,
    RequestMetrics,
    RequestOutput,
)
from penstock.sampling_params import SamplingParams
from penstock_proto.offline_pb2 import End, Piece, Scores, Started

REASONS = {End.LENGTH: "length", End.STOP: "stop"}


@dataclass(slots=True)
class _Sequence:
    """One continuation, as far as it has come."""

    ids: array[int] = field(default_factory=lambda: array("I"))
    texts: list[str] = field(default_factory=list)
    logprobs: list[Logprobs | None] | FlatLogprobs | None = None
    total: float = 0.0  # of the log-probabilities
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def add(self, piece: Piece, params: SamplingParams) -> None:
        self.ids.frombytes(piece.ids)
        self.texts.append(piece.text)
        if piece.HasField("scores"):
            if self.logprobs is None:
                self.logprobs = FlatLogprobs() if params.flat_logprobs else []
            scores = piece.scores
            self.total += sum(scores.logprob[:: scores.width])
            for place in places(scores, params.logprobs or 0):
                self.logprobs.append(place)
        if piece.HasField("end"):
            end = piece.end
            self.finish_reason = REASONS[end.reason]
            which = end.WhichOneof("stop")
            self.stop_reason = getattr(end, which) if which else None

    def output(self, index: int, params: SamplingParams) -> CompletionOutput:
        wanted = params.logprobs is not None or params.logprob_token_ids
        return CompletionOutput(
            index=index,
            text="".join(self.texts),
            token_ids=list(self.ids),
            cumulative_logprob=self.total if self.logprobs is not None else None,
            logprobs=self.logprobs if wanted else None,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )


class Assembly:
    """One prompt's output, while it comes together."""

    def __init__(self, request_id: str, prompt: str | None, params: SamplingParams) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.params = params
        self.prompt_ids: Sequence[int] = ()
        self.prompt_logprobs: Sequence[Logprobs | None] | None = None
        self.generated = 0  # tokens
        self._sequences: dict[int, _Sequence] = {}
        self._left = params.candidates
        self._end: End | None = None

    @property
    def finished(self) -> bool:
        return not self._left

    def start(self, started: Started) -> None:
        """The prompt was taken."""
        ids = array("I")
        ids.frombytes(started.ids)
        self.prompt_ids = ids.tolist()
        if started.HasField("text"):
            self.prompt = started.text

    def add(self, piece: Piece) -> None:
        """A sequence has come further."""
        if piece.HasField("prompt_scores"):
            self._take_prompt(piece.prompt_scores)
        self._sequences.setdefault(piece.index, _Sequence()).add(piece, self.params)
        self.generated += len(piece.ids) // 4
        if piece.HasField("end"):
            self._left -= 1
            self._end = piece.end

    def output(self) -> RequestOutput:
        """All that there is; of more candidates than n the best."""
        outputs = [one.output(i, self.params) for i, one in sorted(self._sequences.items())]
        if self.finished and self.params.candidates > self.params.n:
            outputs.sort(key=lambda output: output.cumulative_logprob or 0.0, reverse=True)
            outputs = outputs[: self.params.n]
            for index, output in enumerate(outputs):
                output.index = index
        return self._with(outputs)

    def delta(self, piece: Piece) -> RequestOutput:
        """What this piece alone holds."""
        sequence = _Sequence()
        sequence.add(piece, self.params)
        return self._with([sequence.output(piece.index, self.params)])

    def _with(self, outputs: list[CompletionOutput]) -> RequestOutput:
        end = self._end
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_ids,
            prompt_logprobs=self.prompt_logprobs,
            outputs=outputs,
            finished=self.finished,
            metrics=None if end is None else RequestMetrics(end.queue, end.first_token, end.total),
            num_cached_tokens=None if end is None else end.cached,
        )

    def _take_prompt(self, scores: Scores) -> None:
        kept: list[Logprobs | None] | FlatLogprobs
        kept = FlatLogprobs() if self.params.flat_logprobs else []
        for _ in range(scores.skipped):
            kept.append(None)
        for place in places(scores, self.params.prompt_logprobs or 0):
            kept.append(place)
        self.prompt_logprobs = kept


def places(scores: Scores, ranked: int) -> Iterator[Logprobs]:
    """Log-probabilities place by place. ranked: so many behind the token itself are the most likely
    ones, whose rank is their place, also among equals; what else stands there was asked for by its
    id."""
    tokens, logprobs, texts = list(scores.token), list(scores.logprob), dict(scores.text)
    others = [place if place <= ranked else None for place in range(1, scores.width)]
    for first, own in zip(range(0, len(tokens), scores.width), scores.rank, strict=True):
        place: Logprobs = {}
        for offset, rank in enumerate((own, *others)):
            token, value = tokens[first + offset], logprobs[first + offset]
            if token not in place:
                place[token] = Logprob(value, rank, texts[token])
            elif rank is not None:
                place[token].rank = rank
        yield place
