"""Answers without a server: listeners of a request get tokens as an engine would give them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from penstock_router.api.openai_answer import Head
from penstock_router.api.openai_stream import ChoiceStream, Extras, Shape
from penstock_router.api.options import Options
from penstock_router.api.output import Output
from penstock_router.api.sequence_group import Collector, SequenceListener
from penstock_router.api.tgi_answer import GenerateStream
from penstock_router.request import Finish, FinishReason, GenerationRequest, Sampling, TopTokens
from penstock_router.text import TextModel

Told = tuple[int, float, TopTokens]  # a token as an engine tells of it


class Events:
    """The events of a stream. `turn` ends a turn of the event loop: what was pushed has left."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self._here = 0

    def push(self, event: bytes) -> None:
        self.sent.append(event)
        self._here += 1

    def replace_last(self, old: bytes, new: bytes) -> bool:
        if self._here and self.sent[-1] is old:
            self.sent[-1] = new
            return True
        return False

    def turn(self) -> None:
        self._here = 0

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(event.partition(b":")[2]) for event in self.sent]


class Ended:
    """In place of a group."""

    def __init__(self) -> None:
        self.count = 0

    def one_ended(self, generated: int) -> None:
        self.count += 1


def play(
    listener: SequenceListener, told: Sequence[Told], events: Events | None = None
) -> FinishReason:
    """Give a listener its tokens, one a turn, until its text ends or none is left."""
    listener.group = ended = Ended()  # type: ignore[assignment]
    reason = FinishReason.LENGTH
    for token, logprob, top in told:
        if events is not None:
            events.turn()
        if listener.token(token, logprob, top, 1):
            reason = FinishReason.STOP
            break
    listener.finish(Finish(reason, len(told), 0, 0.0, 0.0, 0.0))
    assert ended.count == 1
    return reason


def request(prompt: Sequence[int], top_n: int = 0) -> GenerationRequest:
    return GenerationRequest(prompt, 1000, Sampling(logprobs=True, top_n=top_n))


def output(text: TextModel, prompt: Sequence[int], stop: Sequence[str], keep: bool) -> Output:
    options = Options(stop=tuple(stop), keep_stop=keep)
    return Output(text.detokenizer(prompt), text.tokenizer.special_ids, options)


def collected(
    text: TextModel, told: Sequence[Told], *, stop: Sequence[str] = (), keep: bool = True
) -> Collector:
    """The listener of an answer that is sent at once."""
    listener = Collector(request((5,)), output(text, (5,), stop, keep))
    play(listener, told)
    return listener


def generate_events(
    text: TextModel, told: Sequence[Told], stop: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The events of /generate_stream."""
    events = Events()
    listener = GenerateStream(
        request((5,), 2),
        output(text, (5,), stop, True),
        events,  # type: ignore[arg-type]
        text,
        prefix="",
        details=True,
        samples=False,
    )
    play(listener, told, events)
    return events.objects


def choices(
    text: TextModel,
    told: Sequence[Told],
    shape: Shape,
    logprobs: Callable[[TextModel], Any],
    stop: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The choices of a stream of OpenAI's routes."""
    events = Events()
    listener = ChoiceStream(
        request((5,), 2),
        output(text, (5,), stop, False),
        events,  # type: ignore[arg-type]
        head=Head("chunk", "x", "m"),
        shape=shape,
        index=0,
        logprobs=logprobs(text),
        echo=None,
        extras=Extras(),
    )
    play(listener, told, events)
    return [event["choices"][0] for event in events.objects]
