"""What is replayed: a file of requests, or some of each kind where there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.batches.requests import LONGEST_LINE, read_lines

MOST = 100_000  # requests of a file
METHODS = ("GET", "POST")
# where a body without `url` belongs, by a field that it has
BY_FIELD = {
    "messages": "/v1/chat/completions",
    "prompt": "/v1/completions",
    "inputs": "/generate",
    "input": "/v1/responses",
    "text": "/generate",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. body: None for none; {"model": None} becomes the name that a server gives."""

    name: str
    method: str
    path: str
    body: Mapping[str, Any] | None = None

    def for_model(self, model: str) -> Request:
        """With the server's own name of its model, where one is wanted."""
        if self.body is None or self.body.get("model", "") is not None:
            return self
        return Request(self.name, self.method, self.path, {**self.body, "model": model})


def read(path: Path) -> list[Request]:
    """The requests of a file, one JSON object a line. Raises ValueError that names the line."""
    found: list[Request] = []
    for number, line in enumerate(read_lines(path), 1):
        if len(found) == MOST:
            raise ValueError(f"{path} has more than {MOST:,} requests")
        try:
            found.append(_request(line, number))
        except ValueError as error:
            raise ValueError(f"{path}, request {number}: {error}") from None
    if not found:
        raise ValueError(f"{path} has no requests")
    return found


def _request(line: bytes, number: int) -> Request:
    if len(line) > LONGEST_LINE:
        raise ValueError(f"longer than {LONGEST_LINE:,} bytes")
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise ValueError("must be a JSON object")
    if "url" not in entry and "body" not in entry:  # a body alone, as a log may have it
        entry = {"url": _path_of(entry), "body": entry}
    body, url = entry.get("body"), entry.get("url")
    method = entry.get("method", "GET" if body is None else "POST")
    if method not in METHODS:
        raise ValueError(f"`method` must be GET or POST, not {method!r}")
    if not isinstance(url, str) or not url.startswith("/") or not url.isprintable() or " " in url:
        raise ValueError(f"`url` must be a path such as /v1/completions, not {url!r}")
    if body is not None and not isinstance(body, dict):
        raise ValueError("`body` must be a JSON object")
    return Request(str(entry.get("custom_id") or f"request {number}")[:80], method, url, body)


def _path_of(body: Mapping[str, Any]) -> str:
    for field, path in BY_FIELD.items():
        if field in body:
            streams = path == "/generate" and "inputs" in body and body.get("stream") is True
            return "/generate_stream" if streams else path
    raise ValueError(f"has neither `url` nor one of the fields {', '.join(BY_FIELD)}")


MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: dict[str, Any] = {"model": None, "messages": MESSAGES, "temperature": 0, "max_tokens": 16}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "answer", "parameters": SCHEMA}}


def built_in() -> list[Request]:
    """A few of each kind: what clients call, greedy and short; and what is to be refused."""
    chat, text = "/v1/chat/completions", "/v1/completions"
    format_ = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    prompt = {"model": None, "prompt": "The capital of", "temperature": 0, "max_tokens": 8}
    tgi = {"inputs": "The capital of", "parameters": {"max_new_tokens": 8, "details": True}}
    posts: list[tuple[str, str, dict[str, Any]]] = [
        ("chat", chat, GREEDY),
        ("chat, streamed", chat, {**GREEDY, "stream": True}),
        ("chat, log-probabilities", chat, {**GREEDY, "logprobs": True, "top_logprobs": 2}),
        ("chat, JSON schema", chat, {**GREEDY, "response_format": format_}),
        ("chat, tool", chat, {**GREEDY, "tools": [TOOL], "tool_choice": "auto"}),
        ("chat, sampled", chat, {**GREEDY, "temperature": 1, "seed": 1}),
        ("text", text, prompt),
        ("text, streamed", text, {**prompt, "stream": True}),
        ("generate", "/generate", tgi),
        ("generate, streamed", "/generate_stream", tgi),
        ("tokenize", "/tokenize", {"inputs": "The capital of", "prompt": "The capital of"}),
        ("refused: no messages", chat, {"model": None, "messages": []}),
        ("refused: temperature", chat, {**GREEDY, "temperature": -1}),
        ("refused: too long", text, {**prompt, "max_tokens": 100_000_000}),
    ]
    gets = ("/health", "/info", "/v1/models", "/metrics", "/no/such/route")
    return [
        *(Request(path, "GET", path) for path in gets),
        *(Request(name, "POST", path, body) for name, path, body in posts),
    ]
