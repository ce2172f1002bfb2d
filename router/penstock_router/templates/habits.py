"""What a template makes of messages, found out by rendering a few.

What it makes of calls is in `calls.py`. Text counts as shown when it is shown as text: a list that
is printed as Python prints lists has lost the marks of its strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock_router.templates.calls import CallHabits, Render, find_call_habits, text_of
from penstock_router.templates.traced import END, origins, written

Message = Mapping[str, Any]
PROBE = "penstock"


@dataclass(frozen=True, slots=True)
class Habits:
    """parts: whether a role's content must be a list of parts; of roles that are not in it, as of
    users. developer: whether the template knows this role. one_system: whether of several system
    messages at the beginning only the first is shown. calls: how it wants calls of tools."""

    parts: Mapping[str, bool]
    developer: bool
    one_system: bool
    calls: CallHabits

    def adapt(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the template wants them, whatever the client sent."""
        if self.one_system:
            messages = _system_joined(messages)
        return [self._adapted(message) for message in self.calls.adapt(messages)]

    def _adapted(self, message: Message) -> Message:
        role = message["role"]
        if role == "developer" and not self.developer:
            role = "system"
        content = message.get("content") or ""
        if not content and message.get("tool_calls") and self.calls.without_content:
            return {**message, "role": role, "content": None}
        as_parts = self.parts.get(role, self.parts["user"])
        if isinstance(content, str) and as_parts:
            content = _parts(content)
        elif not isinstance(content, str) and not as_parts:
            content = "".join(part.get("text", "") for part in content)
        return {**message, "role": role, "content": content}


def find_habits(render: Render) -> Habits:
    """render: raises an Exception where the template refuses the messages."""
    parts: dict[str, bool] = {}

    def shows(role: str, as_parts: bool) -> bool:
        text = written(PROBE, END)
        probe = {"role": role, "content": _parts(text) if as_parts else text}
        user = {"role": "user", "content": _parts(PROBE) if parts.get("user") else PROBE}
        conversations: dict[str, list[Message]] = {"user": [probe], "assistant": [user, probe]}
        try:
            return END in origins(render(conversations.get(role, [probe, user]), None))
        except Exception:  # whatever Python can raise: it need not take this conversation
            return False

    for role in ("user", "assistant", "system"):
        shown = [as_parts for as_parts in (False, True) if shows(role, as_parts)]
        parts[role] = shown[0] if shown else parts.get("user", False)
    as_parts = parts["user"]

    def one_system() -> bool:
        """Not where the template refuses several."""
        texts = (PROBE, written(PROBE, END))
        system = [
            {"role": "system", "content": _parts(text) if parts["system"] else text}
            for text in texts
        ]
        user = {"role": "user", "content": _parts(PROBE) if as_parts else PROBE}
        try:
            return END not in origins(render([*system, user], None))
        except Exception:
            return False

    return Habits(
        parts,
        developer=shows("developer", parts["system"]),
        one_system=shows("system", parts["system"]) and one_system(),
        calls=find_call_habits(render, lambda text: _parts(text) if as_parts else text),
    )


def _parts(text: str) -> list[Mapping[str, str]]:
    return [{"type": "text", "text": text}]


def _system_joined(messages: Sequence[Message]) -> Sequence[Message]:
    """Those at the beginning as one."""
    count = 0
    while count < len(messages) and messages[count]["role"] in ("system", "developer"):
        count += 1
    if count < 2:
        return messages
    texts = (text_of(message.get("content")) for message in messages[:count])
    return [{**messages[0], "content": "\n\n".join(filter(None, texts))}, *messages[count:]]
