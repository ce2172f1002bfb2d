"""A conversation with a server: what was said, and the answer as it comes."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any

from penstock.lang.backends.http import Connections

SECONDS = 600.0  # that a server may say nothing: it may be busy with others


class Conversation:
    """Keeps the messages; an answer that fails or is stopped leaves them as they were."""

    def __init__(self, url: str, api_key: str = "", **parameters: Any) -> None:
        """parameters: of every request, under OpenAI's names; None: the server's default."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._connections = Connections(url, headers, SECONDS)
        self._parameters = {name: value for name, value in parameters.items() if value is not None}
        self.system = ""
        self.messages: list[Mapping[str, str]] = []

    def model(self) -> str:
        """What the server calls its model. Raises BackendError."""
        models = self._connections.ask("/v1/models", method="GET")
        return str(models["data"][0]["id"])

    def say(self, text: str) -> Generator[str]:
        """The answer in pieces. Closing the iterator ends it on the server. Raises BackendError."""
        asked = [*self.messages, {"role": "user", "content": text}]
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {"messages": [*system, *asked], "stream": True, **self._parameters}
        answer = ""
        with closing(self._connections.events("/v1/chat/completions", body)) as events:
            for event in events:
                for choice in event["choices"]:
                    if piece := choice["delta"].get("content"):
                        answer += piece
                        yield piece
        self.messages = [*asked, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        """Forget what was said; the system prompt stays."""
        self.messages = []

    def close(self) -> None:
        """Close the connection."""
        self._connections.close()
