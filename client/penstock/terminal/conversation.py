"""A conversation with a server: what was said, and the answer as it comes."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from penstock.lang.backends.http import Connections

SECONDS = 600.0  # that a server may say nothing: it may be busy with others
THOUGHTS = ("reasoning_content", "reasoning")  # as servers call them


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer. thought: of what the model considers before it answers."""

    text: str
    thought: bool = False


class Conversation:
    """Keeps the messages; an answer that fails or is stopped leaves them as they were."""

    def __init__(self, url: str, api_key: str = "", **parameters: Any) -> None:
        """parameters: of every request, under OpenAI's names; None: the server's default."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._connections = Connections(url, headers, SECONDS)
        self._parameters = {name: value for name, value in parameters.items() if value is not None}
        self.system = ""
        self.messages: list[Mapping[str, str]] = []
        self.cut = False  # the last answer ended because it was as long as it may be

    def model(self) -> str:
        """What the server calls its model. Raises BackendError."""
        models = self._connections.ask("/v1/models", method="GET")
        return str(models["data"][0]["id"])

    def say(self, text: str) -> Generator[Piece]:
        """The answer in pieces. Closing the iterator ends it on the server. Raises BackendError."""
        asked = [*self.messages, {"role": "user", "content": text}]
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {"messages": [*system, *asked], "stream": True, **self._parameters}
        answer = ""
        self.cut = False
        with closing(self._connections.events("/v1/chat/completions", body)) as events:
            for event in events:
                for choice in event["choices"]:
                    for piece in _pieces(choice["delta"]):
                        answer += "" if piece.thought else piece.text
                        yield piece
                    self.cut |= choice.get("finish_reason") == "length"
        self.messages = [*asked, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        """Forget what was said; the system prompt stays."""
        self.messages = []

    def close(self) -> None:
        """Close the connection."""
        self._connections.close()


def _pieces(delta: Mapping[str, Any]) -> list[Piece]:
    """Thoughts stand in one field or, of some servers, in two."""
    thought = next((delta[name] for name in THOUGHTS if delta.get(name)), None)
    pieces = [Piece(thought, thought=True)] if thought else []
    return [*pieces, Piece(delta["content"])] if delta.get("content") else pieces
