"""Answers of TGI's own routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired

import orjson
from typing_extensions import TypedDict

from penstock_router.api.errors import ApiError
from penstock_router.api.leaving_turns import FEW, leaving_turns
from penstock_router.api.logprobs import number
from penstock_router.api.options import Options
from penstock_router.api.output import Output
from penstock_router.api.sequence_group import Collector, SequenceListener
from penstock_router.api.sse import EventStream
from penstock_router.request import Finish, GenerationRequest, TopTokens
from penstock_router.text import TextModel

_TAIL = b',"generated_text":null,"details":null}\n\n'
# Ends a stream whose time was up between two tokens: no text, and clients skip what is special.
_NO_TOKEN = b'data:{"index":%d,"token":{"id":0,"text":"","logprob":null,"special":true}%b'


class PrefillToken(TypedDict):
    id: int
    text: str
    logprob: float | None


class Token(TypedDict):
    id: int
    text: str
    logprob: float | None
    special: bool


class SequenceDetails(TypedDict):
    finish_reason: str
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    top_tokens: NotRequired[list[list[Token]]]


class BestOfSequence(SequenceDetails):
    generated_text: str


class Details(SequenceDetails):
    best_of_sequences: NotRequired[list[BestOfSequence]]
    cached_tokens: int


class GenerateResponse(TypedDict):
    generated_text: str
    details: NotRequired[Details]


class StreamDetails(TypedDict):
    finish_reason: str
    generated_tokens: int
    seed: int | None
    input_length: int
    cached_tokens: int


class StreamResponse(TypedDict):
    index: int
    token: Token
    top_tokens: NotRequired[list[Token]]
    generated_text: str | None
    details: StreamDetails | None


def answer(
    text: TextModel, listeners: Sequence[Collector], options: Options, prefix: str, details: bool
) -> GenerateResponse:
    """The best of the sequences, and the others in its details. prefix: text before each."""
    best, *others = sorted(listeners, key=lambda listener: listener.mean_logprob, reverse=True)
    response: GenerateResponse = {"generated_text": prefix + best.text}
    if not details:
        return response
    shown: Details = {
        **_sequence(text, best, options),
        "cached_tokens": best.end.cached_tokens,
        "best_of_sequences": [
            {"generated_text": prefix + listener.text, **_sequence(text, listener, options)}
            for listener in others
        ],
    }
    if not others:
        del shown["best_of_sequences"]
    response["details"] = shown
    return response


def _sequence(text: TextModel, listener: Collector, options: Options) -> SequenceDetails:
    special = text.tokenizer.special_ids
    rows = zip(listener.ids, listener.closed_texts, listener.logprobs, strict=True)
    sequence: SequenceDetails = {
        "finish_reason": listener.end.reason.value,
        "generated_tokens": listener.end.generated_tokens,
        "seed": listener.request.sampling.seed if options.samples else None,
        "prefill": _prefill(text, listener),
        "tokens": [
            {"id": i, "text": t, "logprob": number(logprob), "special": i in special}
            for i, t, logprob in rows
        ],
    }
    if listener.request.sampling.top_n:
        sequence["top_tokens"] = [top_tokens(text, top) for top in listener.tops]
    return sequence


def entries(listener: Collector) -> int:
    """Tokens with log-probabilities that the details of a sequence show."""
    asked = listener.request.sampling.top_n
    return len(listener.prompt_logprobs) + len(listener.ids) * (1 + asked)


def _prefill(text: TextModel, listener: Collector) -> list[PrefillToken]:
    # An empty list unless decoder_input_details asked for the prompt's log-probabilities.
    rows = zip(listener.request.prompt, listener.prompt_logprobs, strict=False)
    return [
        {
            "id": token_id,
            "text": text.token_text(token_id),
            "logprob": None if logprob is None else number(logprob),
        }
        for token_id, logprob in leaving_turns(rows, FEW)
    ]


def top_tokens(text: TextModel, top: TopTokens) -> list[Token]:
    """The most likely tokens of one position."""
    special = text.tokenizer.special_ids
    return [
        {
            "id": token_id,
            "text": text.token_text(token_id),
            "logprob": number(logprob),
            "special": token_id in special,
        }
        for token_id, logprob in top
    ]


@dataclass(slots=True)
class HeldToken:
    """A token whose text may yet grow."""

    index: int
    id: int
    text: str
    logprob: float
    special: bool
    top: bytes  # JSON behind the token

    def event(self) -> bytes:
        """Up to the tail."""
        return _event(self.index, self.id, self.text, self.logprob, self.special, self.top)


def _event(
    index: int, token_id: int, text: str, logprob: float, special: bool, top: bytes
) -> bytes:
    return b'data:{"index":%d,"token":{"id":%d,"text":%b,"logprob":%b,"special":%b}%b' % (
        index,
        token_id,
        orjson.dumps(text),
        b"%.8g" % logprob if logprob > -1e30 else b"null",  # NaN is not greater
        b"true" if special else b"false",
        top,
    )


class GenerateStream(SequenceListener):
    """Streams one sequence as /generate_stream does: an event a token.

    The last token's event carries the whole text. The engine says that it was the last in the same
    call that brought it, so its event has not left yet and its tail can be exchanged. Not so where
    the text has reached a stop sequence and the engine is in another process, which has yet to hear
    of it: such a token waits for `finish`. So do tokens from the one that begins a character to the
    one that completes it: if none does, U+FFFD is the text of the last of them.
    """

    def __init__(
        self,
        request: GenerationRequest,
        output: Output,
        stream: EventStream,
        text: TextModel,
        *,
        prefix: str,
        details: bool,
        samples: bool,
    ) -> None:
        super().__init__(request, output)
        self._stream = stream
        self._text = text
        self._special = text.tokenizer.special_ids
        self._prefix = prefix
        self._details = details
        self._seed = request.sampling.seed if samples else None
        self._top_n = request.sampling.top_n
        self._pieces: list[str] = []
        self._index = 0
        self._held: list[HeldToken] = []
        self._last = b""  # event that was pushed

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        output = self.output
        text = output.push(token_id)
        self._pieces.append(output.released)
        self._index += 1
        special = token_id in self._special
        likely = self._top(top) if self._top_n else b""
        pending = output.detokenizer.pending or output.stopped
        if pending or self._held:
            held = HeldToken(self._index, token_id, text, logprob, special, likely)
            self._held.append(held)
            if not pending:
                self._release()
        else:
            self._push(_event(self._index, token_id, text, logprob, special, likely))
        return output.stopped

    def _top(self, top: TopTokens) -> bytes:
        return b',"top_tokens":' + orjson.dumps(top_tokens(self._text, top))

    def _push(self, event: bytes) -> None:
        self._last = event + _TAIL
        self._stream.push(self._last)

    def _release(self) -> None:
        for token in self._held:
            self._push(token.event())
        self._held.clear()

    def finish(self, finish: Finish) -> None:
        rest = self.output.close()
        self._pieces.append(self.output.released)
        if rest:
            next(token for token in reversed(self._held) if not token.special).text += rest
        self._release()
        ending = self._ending(finish)
        if not self._stream.replace_last(self._last, self._last[: -len(_TAIL)] + ending):
            self._stream.push(_NO_TOKEN % (self._index + 1, ending))
        super().finish(finish)

    def _ending(self, finish: Finish) -> bytes:
        """The tail of the last event."""
        details: StreamDetails | None = None
        if self._details:
            details = {
                "finish_reason": finish.reason.value,
                "generated_tokens": finish.generated_tokens,
                "seed": self._seed,
                "input_length": len(self.request.prompt),
                "cached_tokens": finish.cached_tokens,
            }
        return b',"generated_text":%b,"details":%b}\n\n' % (
            orjson.dumps(self._prefix + "".join(self._pieces)),
            orjson.dumps(details),
        )


def error_event(error: ApiError) -> bytes:
    """The last event of a stream that failed."""
    return b"data:" + orjson.dumps(error.body()) + b"\n\n"
