"""Streamed answers of OpenAI's routes: the events of a choice, and those that end a stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import orjson

from penstock_router.api.echo import EchoedPrompt
from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.logprobs import CompletionLogprobs, Logprobs
from penstock_router.api.openai_answer import FINISH_REASONS, Head, counted, usage
from penstock_router.api.output import Output
from penstock_router.api.refusal import TARGET
from penstock_router.api.sequence_group import SequenceListener
from penstock_router.api.sse import EventStream
from penstock_router.request import Finish, GenerationRequest, TopTokens

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """How chat and plain completions differ in a chunk."""

    before_text: str  # JSON of a choice, from the index to the text
    after_text: str  # and from the text to the log-probabilities
    first: str | None  # a choice before all others
    speaker: str = ""  # JSON of who speaks, in every delta

    def choice(self, text: str) -> str:
        """JSON of a choice from the index to the log-probabilities."""
        return self.before_text + orjson.dumps(text).decode() + self.after_text


_SPEAKER = '"delta":{"role":"assistant","content":""}'
# TGI says in every chunk who speaks, and its clients read it there.
CHAT = Shape('"delta":{"role":"assistant","content":', "}", _SPEAKER, '"role":"assistant",')
# For text_generation, whose types ask for it.
TYPED_CHAT = Shape(
    '"delta":{"role":"assistant","tool_calls":null,"content":',
    "}",
    '"delta":{"role":"assistant","tool_calls":null,"content":""}',
    '"role":"assistant",',
)
# For clients that put the deltas together field by field, which would make a word of the roles.
FOLDED_CHAT = Shape('"delta":{"content":', "}", _SPEAKER)
COMPLETION = Shape('"text":', "", first=None)


@dataclass(frozen=True, slots=True)
class Extras:
    """What a stream says besides text."""

    include_usage: bool = False
    usage_in_chunks: bool = False
    token_ids: bool = False

    @property
    def in_each(self) -> bool:
        """Chunks differ in more than their text."""
        return self.usage_in_chunks or self.token_ids


class ChoiceStream(SequenceListener):
    """Streams one choice: an event for each token that shows text.

    Everything but text and log-probabilities is known when the request comes, so an event is
    those between two templates.
    """

    _told = False  # of the prompt's tokens

    def __init__(
        self,
        request: GenerationRequest,
        output: Output,
        stream: EventStream,
        *,
        head: Head,
        shape: Shape,
        index: int,
        logprobs: Logprobs | None,
        echo: EchoedPrompt | None,
        extras: Extras,
    ) -> None:
        super().__init__(request, output)
        self._stream = stream
        self._logprobs = logprobs
        self._echo = echo
        self._firsts = [] if shape.first is None else [shape.first]
        if echo is not None:
            self._firsts.append(shape.choice(echo.text))
        self._shape = shape
        self._extras = extras
        self._plain = logprobs is None and not extras.in_each
        close = '}],"usage":null}\n\n' if extras.include_usage else "}]}\n\n"
        self._render: Callable[[str, str], tuple[bytes, bytes]] = lambda choice, tail: (
            head.template(f'"index":{index},{choice}', tail)
        )
        self._close = close
        self._before, self._after = self._render(
            shape.before_text, shape.after_text + ',"logprobs":null,"finish_reason":null' + close
        )
        self._silent = True  # nothing sent yet
        self._ids: list[int] = []  # since the last event
        self._generated = 0

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        output = self.output
        text = output.push(token_id)
        if self._silent:
            self._begin()
        if self._logprobs is not None:
            self._logprobs.add(token_id, text, logprob, top)
        self._note(token_id)
        if output.released:
            self._show(output.released)
        return output.stopped

    def _note(self, token_id: int) -> None:
        """Remember what chunks say of tokens."""
        if not self._plain:
            self._generated += 1
            self._ids.append(token_id)

    def _begin(self) -> None:
        self._silent = False
        for place, choice in enumerate(self._firsts):
            self._push_choice(choice, None, prompt=not place)

    def _show(self, text: str) -> None:
        if self._plain:
            self._stream.push(self._before + orjson.dumps(text) + self._after)
        else:
            self._push_choice(self._shape.choice(text), None, prompt=not self._firsts)

    def _push_choice(
        self, choice: str, finish_reason: str | None, more: str = "", prompt: bool = False
    ) -> None:
        """more: JSON at the end of the choice. prompt: the first event, which tells of it."""
        logprobs = self._logprobs
        taken = logprobs.take() if logprobs is not None and logprobs.waiting else None
        before, after = self._render(
            f'{choice},"logprobs":{orjson.dumps(taken).decode()}',
            f',"finish_reason":{orjson.dumps(finish_reason).decode()}{more}{self._tail(prompt)}',
        )
        self._stream.push(before + after)

    def _tail(self, prompt: bool) -> str:
        """What vLLM's fields add to a chunk, and its end."""
        extras, close = self._extras, self._close
        in_choice = beside = ""
        if extras.token_ids:
            ids, self._ids = self._ids, []
            in_choice = f',"token_ids":{orjson.dumps(ids).decode()}'
            if prompt and not self._told:
                self._told = True
                text = orjson.dumps(list(self.request.prompt)).decode()
                if self._shape.first is None:
                    in_choice += f',"prompt_token_ids":{text}'
                else:
                    beside = f',"prompt_token_ids":{text}'
        if extras.usage_in_chunks:
            used = counted(len(self.request.prompt), self._generated)
            close = f'}}],"usage":{orjson.dumps(used).decode()}}}\n\n'
        return f"{in_choice}{close[:2]}{beside}{close[2:]}"

    def finish(self, finish: Finish) -> None:
        if self._silent:
            self._begin()
        self.output.close()
        if self.output.released:
            self._show(self.output.released)
        self._push_end(FINISH_REASONS[finish.reason])
        super().finish(finish)

    def _push_end(self, reason: str) -> None:
        stop = f',"stop_reason":{orjson.dumps(self.output.stop_reason).decode()}'
        self._push_choice(self._shape.choice(""), reason, stop, prompt=not self._firsts)


class ScoredStream(ChoiceStream):
    """A choice that repeats its prompt with the log-probabilities of it.

    These take some 10 us a token to put together, which a thread does. Tokens that come meanwhile
    are shown all at once after the prompt.
    """

    _logprobs: CompletionLogprobs
    _echo: EchoedPrompt
    _waiting: list[tuple[int, str, str, float, TopTokens]] | None = None
    _end: Finish | None = None

    def prompt(
        self, logprobs: Sequence[float | None], tops: Sequence[TopTokens], ranks: Sequence[int]
    ) -> None:
        self._waiting = []
        ids, offsets = self.request.prompt, self._echo.offsets
        work = partial(self._logprobs.add_prompt, ids, offsets, logprobs, tops)
        asyncio.get_running_loop().run_in_executor(None, work).add_done_callback(self._go_on)

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        if self._waiting is None:
            return super().token(token_id, logprob, top, rank)
        output = self.output
        text = output.push(token_id)
        self._waiting.append((token_id, text, output.released, logprob, top))
        self._note(token_id)
        return output.stopped

    def finish(self, finish: Finish) -> None:
        if self._waiting is None:
            super().finish(finish)
        else:
            self._end = finish

    def _go_on(self, work: asyncio.Future[None]) -> None:
        if (fault := work.exception()) is not None:
            logging.getLogger(TARGET).error("Fault", exc_info=fault)
            return self.group.fail(ApiError(Kind.INTERNAL))
        waiting, self._waiting = self._waiting or [], None
        self._begin()
        for token_id, text, _, logprob, top in waiting:
            self._logprobs.add(token_id, text, logprob, top)
        if shown := "".join(released for _, _, released, _, _ in waiting):
            self._show(shown)
        if self._end is not None:
            super().finish(self._end)


def last_events(
    head: Head, listeners: Sequence[SequenceListener], include_usage: bool, done: bytes
) -> bytes:
    """What ends a stream that succeeded. done: what says so."""
    if not include_usage:
        return done
    chunk = head.fields() | {"choices": [], "usage": usage(listeners)}
    return b"data: " + orjson.dumps(chunk) + b"\n\n" + done


def error_event(error: ApiError) -> bytes:
    """The last event of a stream that failed."""
    return b"data: " + orjson.dumps(error.body("/v1/")) + b"\n\n"
