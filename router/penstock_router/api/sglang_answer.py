"""Answers of SGLang's /generate: whole ones, and streams whose events hold all text so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired

import orjson
from typing_extensions import TypedDict

from penstock_router.api.errors import ApiError
from penstock_router.api.output import Output
from penstock_router.api.sglang_scores import Scored
from penstock_router.api.sse import EventStream
from penstock_router.api.turns import Turn
from penstock_router.request import (
    Aborted,
    EngineError,
    Finish,
    FinishReason,
    GenerationRequest,
    TopTokens,
)
from penstock_router.text import TextModel
from penstock_router.text.stop_pattern import PatternSearch, StopPatterns

DONE = b"data: [DONE]\n\n"


class SGLangResponse(TypedDict):
    """Of one sequence; of several a list of these."""

    text: str | list[str]
    output_ids: NotRequired[list[int]]
    meta_info: dict[str, Any] | list[dict[str, Any]]
    prompt_token_ids: NotRequired[list[int]]
    index: NotRequired[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an answer shows of one sequence."""

    id: str
    index: int | None  # its place in the answer's list; None: the answer is no list
    prompt_ids: bool
    logprobs: bool
    start: int | None  # place of the first entry of the prompt; None: there are none
    texts: bool  # entries hold the texts of their tokens
    interval: int  # tokens from one event to the next
    # What `meta_info` says of a whole answer, from its prompt, its tokens and its text.
    read: Callable[[Sequence[int], Sequence[int], str], dict[str, Any]] | None = None
    patterns: StopPatterns | None = None  # that end it, not before `least` tokens
    least: int = 0


class Generated(Turn):
    """Keeps what a sequence generates, as it is shown."""

    def __init__(
        self, request: GenerationRequest, output: Output, text: TextModel, wanted: Wanted
    ) -> None:
        super().__init__(request, output)
        self.ids: list[int] = []
        self.text = ""
        self.wanted = wanted
        self._begun = time.monotonic()
        self._reason: dict[str, object] | None = None
        self._read: dict[str, Any] = {}
        shown = text if wanted.texts else None
        self._search = None if wanted.patterns is None else wanted.patterns.search()
        self._input = Scored(shown, request, "input") if wanted.logprobs else None
        self._output = Scored(shown, request, "output") if wanted.logprobs else None
        # of the prompt, not yet written
        self._scores: tuple[Sequence[float | None], Sequence[TopTokens]] = (), ()

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        if self._input is not None:
            self._scores = logprobs, tops

    def _write_prompt(self, entries: Scored) -> None:
        """Half a microsecond an entry, which a thread takes where they are many."""
        logprobs, tops = self._scores
        self._scores = (), ()
        if self.wanted.start is not None:
            entries.extend(self.request.prompt, logprobs, tops, self.wanted.start)

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        output = self.output
        output.push(token_id)
        self.ids.append(token_id)
        self.text += output.released
        if self._output is not None:
            self._output.add(token_id, logprob, top)
        if self._search is not None and not output.stopped:
            self._look(self._search)
        return output.stopped

    def _look(self, search: PatternSearch) -> None:
        """For an expression that ends the answer; what it has found stays part of the text."""
        output = self.output
        if len(self.ids) > self.wanted.least and search.feed(output.released):
            output.stopped, output.stop_reason = True, search.found
            if search.failed:
                self._reason = _abort("an expression of `stop_regex` became too complex")

    def finish(self, finish: Finish) -> None:
        self.output.close()
        self.text += self.output.released
        if self._reason is None:
            self._reason = self._why(finish)
        self.end = finish
        if self.wanted.read is not None:
            self._read = self.wanted.read(self.request.prompt, self.ids, self.text)
        self._closed()
        self.give_back()
        super().finish(finish)

    def fail(self, error: EngineError) -> None:
        """What was aborted by its name ends where it is."""
        if isinstance(error, Aborted):
            self._reason = _abort(str(error))
            seconds = time.monotonic() - self._begun
            count = len(self.ids)
            self.finish(Finish(FinishReason.LENGTH, count, 0, 0.0, seconds, seconds))
        else:
            self.give_back()
            super().fail(error)

    def _closed(self) -> None:
        """The answer is complete."""

    def _why(self, finish: Finish) -> dict[str, object]:
        if finish.reason is FinishReason.LENGTH:
            return {"type": "length", "length": finish.generated_tokens}
        matched = self.ids[-1] if finish.reason is FinishReason.EOS else self.output.stop_reason
        return {"type": "stop", "matched": matched}

    def shown(self) -> dict[str, object]:
        """The answer, or what there is of it so far."""
        ended = self._reason is not None
        cached = self.end.cached_tokens if ended else 0
        meta: dict[str, object] = {
            "id": self.wanted.id,
            "finish_reason": self._reason,
            "prompt_tokens": len(self.request.prompt),
            "weight_version": "default",
            "completion_tokens": len(self.ids),
            "cached_tokens": cached,
            "cached_tokens_details": {"device": cached, "host": 0},
            "dp_rank": None,
        }
        if ended:
            meta["e2e_latency"] = self.end.total_seconds
        if self._input is not None:
            self._write_prompt(self._input)
        for scored in (self._input, self._output):
            if scored is not None:
                meta |= scored.fields
        meta |= self._read
        answer: dict[str, object] = {
            "text": self.text,
            "output_ids": self.ids,
            "meta_info": meta,
        }
        if self.wanted.prompt_ids:
            answer["prompt_token_ids"] = list(self.request.prompt)
        return answer


def _abort(why: str) -> dict[str, object]:
    return {"type": "abort", "message": why, "status_code": None, "err_type": None}


class GeneratedStream(Generated):
    """Streams one sequence: every event holds all that there is of it so far.

    So an event that has not left yet when the next one comes is replaced by that.
    """

    def __init__(
        self,
        request: GenerationRequest,
        output: Output,
        text: TextModel,
        wanted: Wanted,
        stream: EventStream,
    ) -> None:
        super().__init__(request, output, text, wanted)
        self._stream = stream
        self._last = b""

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        stopped = super().token(token_id, logprob, top, rank)
        if not stopped and len(self.ids) % self.wanted.interval == 0:
            self._push()
        return stopped

    def _closed(self) -> None:
        self._push()

    def _push(self) -> None:
        shown = self.shown()
        if self.wanted.index is not None:
            shown["index"] = self.wanted.index
        event = b"data: " + orjson.dumps(shown) + b"\n\n"
        if not self._stream.replace_last(self._last, event):
            self._stream.push(event)
        self._last = event


def error_event(error: ApiError) -> bytes:
    """The last event of a stream that failed."""
    row = error.row
    shown = {"message": str(error), "type": row.error_type, "code": row.status, "retryable": False}
    return b"data: " + orjson.dumps({"error": shown}) + b"\n\n"
