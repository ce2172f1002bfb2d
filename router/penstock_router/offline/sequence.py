"""What one sequence of a program's prompt generates, on its way into messages."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

from penstock_proto import offline_pb2 as wire
from penstock_router.api.output import Output
from penstock_router.request import EngineError, Finish, FinishReason, GenerationRequest, TopTokens
from penstock_router.text import TextModel


class Generated:
    """The engine's listener of one sequence: collects until a piece is taken.

    on_news is called where there is something to take and the program wants it now; on_end once,
    with the error that ended it or None.
    """

    __slots__ = ("_detokenize", "_finish", "_ids", "_logprobs", "_on_end", "_on_news", "_output",
                 "_prompt", "_ranks", "_texts", "_tops", "index", "request",
                 "text_model")  # fmt: skip

    def __init__(
        self,
        request: GenerationRequest,
        index: int,
        output: Output,
        text_model: TextModel,
        *,
        detokenize: bool,
        on_news: Callable[[Generated], None] | None,
        on_end: Callable[[Generated, EngineError | None], None],
    ) -> None:
        self.request = request
        self.index = index
        self.text_model = text_model
        self._output = output
        self._detokenize = detokenize
        self._on_news = on_news
        self._on_end = on_end
        self._finish: Finish | None = None
        self._prompt: wire.Scores | None = None
        self._clear()

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        likely = tops or [()] * len(logprobs)
        rows = zip(self.request.prompt, logprobs, likely, ranks, strict=True)
        known = [row for row in rows if row[1] is not None]
        self._prompt = scores(self.text_model, known)  # type: ignore[arg-type]
        self._prompt.skipped = len(logprobs) - len(known)

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        output = self._output
        output.push(token_id)
        self._ids.append(token_id)
        self._texts.append(output.released)
        if self.request.sampling.logprobs:
            self._logprobs.append(logprob)
            self._tops.append(top)
            self._ranks.append(rank)
        if self._on_news is not None:
            self._on_news(self)
        return output.stopped

    def finish(self, finish: Finish) -> None:
        self._output.close()
        self._texts.append(self._output.released)
        self._finish = finish
        self._on_end(self, None)

    def fail(self, error: EngineError) -> None:
        self._on_end(self, error)

    @property
    def ended(self) -> Finish | None:
        """How it ended."""
        return self._finish

    def take(self, number: int) -> wire.Piece:
        """What came since the last time. number: of its prompt."""
        piece = wire.Piece(prompt=number, index=self.index, ids=self._ids.tobytes())
        if self._detokenize:
            piece.text = "".join(self._texts)
        if self._logprobs:
            rows = zip(self._ids, self._logprobs, self._tops, self._ranks, strict=True)
            piece.scores.CopyFrom(scores(self.text_model, rows))
        if self._prompt is not None:
            piece.prompt_scores.CopyFrom(self._prompt)
            self._prompt = None
        if self._finish is not None:
            piece.end.CopyFrom(self._end(self._finish))
        self._clear()
        return piece

    def _end(self, finish: Finish) -> wire.End:
        length = finish.reason is FinishReason.LENGTH
        stop = self._output.stop_reason
        return wire.End(
            reason=wire.End.LENGTH if length else wire.End.STOP,
            stop_text=stop if isinstance(stop, str) else None,
            stop_token=stop if isinstance(stop, int) else None,
            cached=finish.cached_tokens,
            queue=finish.queue_seconds,
            first_token=finish.first_token_seconds,
            total=finish.total_seconds,
        )

    def _clear(self) -> None:
        self._ids = array("I")
        self._texts: list[str] = []
        self._logprobs: list[float] = []
        self._tops: list[TopTokens] = []
        self._ranks: list[int] = []


def scores(text_model: TextModel, rows: Iterable[tuple[int, float, TopTokens, int]]) -> wire.Scores:
    """Log-probabilities and ranks of tokens, each with the most likely ones in its place."""
    tokens: list[int] = []
    logprobs: list[float] = []
    ranks: list[int] = []
    width = 0
    for token_id, logprob, top, rank in rows:
        tokens.append(token_id)
        logprobs.append(logprob)
        ranks.append(rank)
        for other, value in top:
            tokens.append(other)
            logprobs.append(value)
        width = 1 + len(top)
    texts = {token: text_model.token_text(token) for token in set(tokens)}
    return wire.Scores(width=width, token=tokens, logprob=logprobs, text=texts, rank=ranks)
