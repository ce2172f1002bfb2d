"""How a template wants calls of tools and their results, found out by rendering one."""

from __future__ import annotations

import hashlib
import itertools
import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
# Renders messages with tools. Raises an Exception where the template refuses them.
Render = Callable[[list[Message], Sequence[Mapping[str, Any]] | None], str]

_LETTERS = string.ascii_letters + string.digits
_NAME, _KEY, _VALUE, _RESULT = "penstock_f", "penstock_k", "penstock_v", "penstock_r"
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
    """

    shows: bool = False
    arguments_as_text: bool = False
    without_content: bool = False
    short_ids: bool = False
    tool_role: bool = False

    def adapt(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Messages with calls, and results, as the template wants them. Other ones stay."""
        called = False
        for message in messages:
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
            return CallHabits(True, as_text, without, short, _RESULT in rendered)
    plain = {"role": "assistant", "content": content("penstock")}
    return CallHabits(tool_role=_RESULT in text(CallHabits(tool_role=True), plain, _LONG_ID))


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
