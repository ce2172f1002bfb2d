"""What the model has been told so far: text, or the turns of a conversation.

A prompt never changes: forks share it, and each goes its own way.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of a turn. Of what a model wrote with tools or reasoning also what it said, thought and
    called; `said` is None where all of it is text."""

    text: str
    said: str | None = None
    thought: str = ""
    calls: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A turn that has ended."""

    role: str
    content: str
    thought: str = ""
    calls: tuple[dict[str, Any], ...] = ()

    @property
    def shown(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.thought:
            message["reasoning_content"] = self.thought
        if self.calls:
            message["tool_calls"] = list(self.calls)
        return message


@dataclass(frozen=True, slots=True)
class Prompt:
    """role: of the turn that is open; None: between turns, or there are none and all is text."""

    messages: tuple[Message, ...] = ()
    role: str | None = None
    pieces: tuple[Piece, ...] = ()

    @property
    def has_turns(self) -> bool:
        """The chat template is needed."""
        return self.role is not None or bool(self.messages)

    @property
    def text(self) -> str:
        """Of the turn that is open, or all text where there are no turns."""
        return "".join(piece.text for piece in self.pieces)

    def written(self, piece: Piece) -> Prompt:
        """With more text. Raises ValueError outside of a turn."""
        if not piece.text and not piece.calls:
            return self
        if self.messages and self.role is None:
            raise ValueError(
                "text stands outside of a turn: once a program has turns, its text belongs into "
                "system(…), user(…) or assistant(…)"
            )
        plain = piece.said is None and self.pieces and self.pieces[-1].said is None
        if plain:
            *before, last = self.pieces
            return dataclasses.replace(self, pieces=(*before, Piece(last.text + piece.text)))
        return dataclasses.replace(self, pieces=(*self.pieces, piece))

    def opened(self, role: str) -> Prompt:
        """A turn begins. Raises ValueError where one is open, or text stands before all turns."""
        if self.role is not None:
            raise ValueError(f"a turn of `{role}` cannot begin within one of `{self.role}`")
        if self.pieces:
            raise ValueError(
                f"a turn of `{role}` cannot follow text that belongs to no turn: put that text "
                "into system(…) or user(…)"
            )
        return dataclasses.replace(self, role=role)

    def closed(self, role: str) -> Prompt:
        """It ends. Raises ValueError where no such turn is open."""
        if self.role != role:
            raise ValueError(f"no turn of `{role}` is open, so none can end")
        content = "".join(p.text if p.said is None else p.said for p in self.pieces)
        thought = "".join(piece.thought for piece in self.pieces)
        calls = tuple(call for piece in self.pieces for call in piece.calls)
        return Prompt((*self.messages, Message(role, content, thought, calls)))

    def since(self, earlier: Prompt) -> Prompt:
        """What this prompt has beyond an earlier one, which it came from."""
        if len(self.messages) == len(earlier.messages):
            more = self.text[len(earlier.text) :]
            return Prompt((), self.role, (Piece(more),) if more else ())
        return Prompt(self.messages[len(earlier.messages) :], self.role, self.pieces)

    def joined(self, more: Prompt) -> Prompt:
        """With what a fork has added."""
        if more.messages:
            if self.pieces or self.role is not None:
                raise ValueError("turns of a fork cannot be joined within a turn")
            return Prompt((*self.messages, *more.messages), more.role, more.pieces)
        joined = self
        for piece in more.pieces:
            joined = joined.written(piece)
        return joined
