"""How a template wants calls of tools and their results, found out by rendering one."""

from __future__ import annotations

import hashlib
import itertools
import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Message = Mapping[str, Any]
# Renders messages with tools. Raises an Exception where the template refuses them.
Render = Callable[[list[Message], Sequence[Mapping[str, Any]] | None], str]

_LETTERS = string.ascii_letters + string.digits
_NAME, _KEY, _VALUE, _RESULT = "penstock_f", "penstock_k", "penstock_v", "penstock_r"
_SECOND, _THOUGHT = "penstock_g", "penstock_h"
# Of another name, so that it is no call that shows it.
_TOOL = {
    "type": "function",
    "function": {
        "name": "penstock_t",
        "description": "penstock",
        "parameters": {
            "type": "object",
            "properties": {"penstock_p": {"type": "string", "description": "penstock"}},
        },
    },
}
_LONG_ID, _SHORT_ID = "call_penstock0123456789", "penstock0"


@dataclass(frozen=True, slots=True)
class CallHabits:
    """shows: whether the template shows calls at all; else they become text. arguments_as_text:
    whether arguments must be JSON as a string. without_content: whether a message with calls must
    have null as its content. short_ids: whether ids must be 9 letters and digits. tool_role:
    whether the template knows who `tool` is; else results of calls come from the user.
    one_by_one: whether of several calls of a message only the first is shown. thinking: whether
    the thoughts before calls must stand in `thinking`. one_text: whether text that stands beside
    them is refused; then it counts among them.
    """

    shows: bool = False
    arguments_as_text: bool = False
    without_content: bool = False
    short_ids: bool = False
    tool_role: bool = False
    one_by_one: bool = False
    thinking: bool = False
    one_text: bool = False

    def adapt(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Messages with calls, and results, as the template wants them. Other ones stay."""
        called = False
        for message in _apart(messages) if self.one_by_one else messages:
            if calls := message.get("tool_calls"):
                called = True
                yield from self._called(message, calls)
            elif message["role"] == "tool":
                yield self._result(message, called)
            else:
                yield message

    def _called(self, message: Message, calls: Sequence[Mapping[str, Any]]) -> Iterator[Message]:
        text = message.get("content")
        if not self.shows:
            written = "\n".join(map(_as_text, calls))
            pieces = [text] if isinstance(text, str) else [p.get("text", "") for p in text or ()]
            content = "\n".join(piece for piece in (*pieces, written) if piece)
            yield {k: v for k, v in message.items() if k != "tool_calls"} | {"content": content}
            return
        thoughts = message.get("reasoning_content")
        if self.thinking and thoughts:
            if text and self.one_text:
                thoughts = "\n\n".join((thoughts, text_of(text)))
                message = {**message, "content": ""}
            message = {**message, "thinking": thoughts}
        if text and self.without_content:
            yield {k: v for k, v in message.items() if k != "tool_calls"}
            message = {**message, "content": None}
        yield {**message, "tool_calls": [self._call(call) for call in calls]}

    def _call(self, call: Mapping[str, Any]) -> Mapping[str, Any]:
        function = call["function"]
        arguments = function["arguments"]
        if self.arguments_as_text:
            arguments = json.dumps(arguments, ensure_ascii=False)
        own = {"function": {"name": function["name"], "arguments": arguments}}
        return {**call, **own, **({"id": _short(call["id"])} if self.short_ids else {})}

    def _result(self, message: Message, called: bool) -> Message:
        if not self.tool_role and called:
            return {**message, "role": "user"}
        if self.short_ids and "tool_call_id" in message:
            return {**message, "tool_call_id": _short(message["tool_call_id"])}
        return message


def find_call_habits(render: Render, content: Callable[[str], Any]) -> CallHabits:
    """content: text as the template wants it."""

    def text(habits: CallHabits, message: Message, call_id: str) -> str:
        result = {"role": "tool", "content": content(_RESULT), "tool_call_id": call_id}
        user = {"role": "user", "content": content("penstock")}
        try:
            return render([user, *habits.adapt([message, result])], [_TOOL])
        except Exception:  # whatever Python can raise: it need not take this conversation
            return ""

    for short, without, as_text in itertools.product((False, True), repeat=3):
        call_id = _SHORT_ID if short else _LONG_ID
        habits = CallHabits(True, as_text, without, tool_role=True)
        function = {"name": _NAME, "arguments": {_KEY: _VALUE}}
        call = {"id": call_id, "type": "function", "function": function}
        empty = None if without else content("")
        rendered = text(
            habits, {"role": "assistant", "content": empty, "tool_calls": [call]}, call_id
        )
        if _shows(rendered):
            found = CallHabits(True, as_text, without, short, _RESULT in rendered)
            return _looked_at_closer(found, text, call)
    plain = {"role": "assistant", "content": content("penstock")}
    return CallHabits(tool_role=_RESULT in text(CallHabits(tool_role=True), plain, _LONG_ID))


def _looked_at_closer(
    habits: CallHabits, text: Callable[[CallHabits, Message, str], str], call: Message
) -> CallHabits:
    """Of a template that shows calls. text: what it makes of a message and a result."""

    def shown(word: str, habits: CallHabits, **parts: Any) -> bool:
        return word in text(habits, {"role": "assistant", "content": "", **parts}, call["id"])

    second = {**call, "id": call["id"][::-1], "function": {**call["function"], "name": _SECOND}}
    pair = [call, second]
    one_by_one = shown(_NAME, habits, tool_calls=pair) and not shown(
        _SECOND, habits, tool_calls=pair
    )
    known = {"reasoning_content": _THOUGHT, "reasoning": _THOUGHT}
    thinking = not shown(_THOUGHT, habits, tool_calls=[call], **known) and shown(
        _THOUGHT, replace(habits, thinking=True), tool_calls=[call], **known
    )
    habits = replace(habits, one_by_one=one_by_one, thinking=thinking)
    beside = {"role": "assistant", "content": "penstock", "tool_calls": [call], **known}
    one_text = thinking and not text(habits, beside, call["id"])
    return replace(habits, one_text=one_text)


def _apart(messages: Sequence[Message]) -> Iterator[Message]:
    """Calls of one message in messages of their own, each before its results."""
    place = 0
    while place < len(messages):
        message = messages[place]
        calls = message.get("tool_calls") or []
        place += 1
        if len(calls) < 2:
            yield message
            continue
        results = []
        while place < len(messages) and messages[place]["role"] == "tool":
            results.append(messages[place])
            place += 1
        yield from _in_pairs(message, calls, results)


def _in_pairs(
    message: Message, calls: Sequence[Mapping[str, Any]], results: Sequence[Message]
) -> Iterator[Message]:
    """A result belongs to the call that it names; one that names none to the next one without."""
    named = {call["id"] for call in calls}
    others = [result for result in results if result.get("tool_call_id") not in named]
    rest = {k: v for k, v in message.items() if k not in ("reasoning_content", "reasoning")}
    for index, call in enumerate(calls):
        own = [result for result in results if result.get("tool_call_id") == call["id"]]
        head = message if index == 0 else {**rest, "content": ""}
        yield {**head, "tool_calls": [call]}
        yield from own or others[:1]
        others = others if own else others[1:]
    yield from others


def text_of(content: Any) -> str:
    """Of a string, or of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def _shows(text: str) -> bool:
    """Whether a call stands there as a model would write it: no list of Python's, no JSON in a
    string."""
    wrong = (f"'{_KEY}'", f'\\"{_KEY}')
    return all(word in text for word in (_NAME, _KEY, _VALUE)) and not any(w in text for w in wrong)


def _as_text(call: Mapping[str, Any]) -> str:
    function = call["function"]
    return json.dumps(
        {"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False
    )


def _short(call_id: str) -> str:
    """An id of 9 letters and digits: itself if it is one, else one that is always the same."""
    if len(call_id) == 9 and call_id.isascii() and call_id.isalnum():
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode(errors="replace")).digest()[:8], "big")
    digits = []
    for _ in range(9):
        number, digit = divmod(number, len(_LETTERS))
        digits.append(_LETTERS[digit])
    return "".join(digits)
