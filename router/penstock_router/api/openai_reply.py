"""Chat answers that are read: with reasoning and calls beside the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from penstock_router.api.openai_answer import FINISH_REASONS
from penstock_router.api.openai_chat import ChatRequest
from penstock_router.api.openai_stream import ChoiceStream
from penstock_router.api.openai_tools import shown_calls
from penstock_router.api.output import Output
from penstock_router.api.reply import ReplyOutput
from penstock_router.api.sequence_group import Collector, SequenceListener
from penstock_router.request import Finish, GenerationRequest, TopTokens
from penstock_router.tools.events import (
    Arguments,
    CallEnded,
    CallStarted,
    Event,
    Reasoning,
    Reply,
    Text,
    joined,
)


@dataclass(frozen=True, slots=True)
class AnswerStyle:
    """older: calls are `function_call`, of which an answer has one. reasoning: it is shown."""

    older: bool
    reasoning: bool

    def message(self, reply: Reply) -> dict[str, Any]:
        """The message of an answer that is sent at once."""
        message: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.reasoning and self.reasoning:
            message |= _both_names(reply.reasoning)
        if reply.calls:
            message["content"] = reply.text or None
            calls = shown_calls(reply.calls)
            message |= (
                {"function_call": calls[0]["function"]} if self.older else {"tool_calls": calls}
            )
        return message

    def finish_reason(self, reason: str, called: bool) -> str:
        """An answer that ends with calls says so, unless it was cut."""
        if not called or reason != "stop":
            return reason
        return "function_call" if self.older else "tool_calls"

    def delta(self, event: Event) -> Mapping[str, Any] | None:
        """The fields of a delta; None where nothing is shown."""
        match event:
            case Reasoning(text=text):
                return _both_names(text) if self.reasoning else None
            case CallStarted(index=index, id=call_id, name=name):
                function = {"name": name, "arguments": ""}
                return self._call(index, {"id": call_id, "type": "function"}, function)
            case Arguments(index=index, json=json):
                return self._call(index, {}, {"arguments": json})
            case Text() | CallEnded():
                return None

    def _call(
        self, index: int, head: Mapping[str, Any], function: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if self.older:
            return {"function_call": function}
        return {"tool_calls": [{"index": index, **head, "function": function}]}


def answer_style(body: ChatRequest) -> AnswerStyle:
    """How an answer to this request shows what was read."""
    return AnswerStyle(older=bool(body.functions), reasoning=body.include_reasoning)


class ReplyCollector(Collector):
    """Keeps what was read until the end."""

    output: ReplyOutput
    reply: Reply

    def __init__(self, request: GenerationRequest, output: Output) -> None:
        super().__init__(request, output)
        self._events: list[Event] = []

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        stopped = super().token(token_id, logprob, top, rank)
        self._events += self.output.events
        return stopped

    def finish(self, finish: Finish) -> None:
        super().finish(finish)
        self.reply = joined([*self._events, *self.output.events])


class ReplyStream(ChoiceStream):
    """Streams what was read: an event for each piece."""

    output: ReplyOutput

    def __init__(self, *args: Any, style: AnswerStyle, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._style = style

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        output = self.output
        text = output.push(token_id)
        if self._silent:
            self._begin()
        if self._logprobs is not None:
            self._logprobs.add(token_id, text, logprob, top)
        self._note(token_id)
        if output.events:
            self._tell(output.events)
        return output.stopped

    def finish(self, finish: Finish) -> None:
        if self._silent:
            self._begin()
        self.output.close()
        self._tell(self.output.events)
        reason = self._style.finish_reason(FINISH_REASONS[finish.reason], self.output.called)
        self._push_end(reason)
        SequenceListener.finish(self, finish)

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Text):
                self._show(event.text)
            elif (fields := self._style.delta(event)) is not None:
                delta = orjson.dumps(fields)[1:].decode()
                self._push_choice(f'"delta":{{{self._shape.speaker}{delta}', None)


def _both_names(text: str) -> dict[str, str]:
    """Reasoning under the name that DeepSeek and vLLM gave it, and under the newer one."""
    return {"reasoning_content": text, "reasoning": text}
