"""Where the last message ends in the rendered text, so that the answer goes on there.

The end of the message is marked, from its last character that is no white space, and what the
template shows behind it is cut. A message whose end is not shown, as it is empty or the template
shows only a part of it, is rendered once more with a word added, which is cut with all behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock_router.templates.errors import TemplateError
from penstock_router.templates.traced import END, LAST, concat, origins, written

Message = Mapping[str, Any]


def render_to_the_end(messages: Sequence[Message], render: Callable[[list[Message]], str]) -> str:
    """What is rendered of the messages, up to the end of the last one. Raises TemplateError."""
    text = render(_with_last(messages, _end_marked))
    if (end := origins(text).rfind(END)) >= 0:
        return text[: end + 1]
    text = render(_with_last(messages, _with_a_word))
    if (end := origins(text).rfind(END)) < 0:
        raise TemplateError("the template does not show the last message, so it cannot go on")
    return _without_blank(text[:end])


def _end_marked(content: str) -> str:
    end = max(len(content.rstrip()) - 1, 0)
    return concat((written(content[:end], LAST), written(content[end:], END)))


def _with_a_word(content: str) -> str:
    return concat((written(content, LAST), written("x", END)))


def _without_blank(text: str) -> str:
    """Without the message's white space at its end, which only the word behind it has kept."""
    words = len(text.rstrip())
    return text[: words + len(origins(text)[words:].rstrip(bytes([LAST])))]


def _with_last(messages: Sequence[Message], change: Callable[[str], str]) -> list[Message]:
    """The messages with another text in the last one: of parts, the last one that has a text."""
    *before, last = messages
    content = last["content"]
    if isinstance(content, str):
        return [*before, {**last, "content": change(content)}]
    parts = [dict(part) for part in content]
    for part in reversed(parts):
        if "text" in part:
            part["text"] = change(part["text"])
            break
    return [*before, {**last, "content": parts}]
