"""What the traffic is made of: requests of every kind that clients send, well or badly.

A kind is a function from a source of chance to a request; each says how it may end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

WORDS = ("the", "rain", "in", "Spain", "κόσμε", "stays", "mainly", "🙂", "a", "list", "of", "why")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["name", "count", "tags"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, and how it may end."""

    path: str
    body: Mapping[str, Any]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    last: bytes = b""  # what the last event of a stream must hold; empty: no stream
    leave: float | None = None  # seconds after which the client is gone


def prompt(chance: random.Random, most: int = 160) -> str:
    """Half of them begin alike, so that prefixes are found and blocks are shared."""
    count = int(most ** chance.random()) + 1
    start = "Once upon a time there was a server. " * 6 if chance.random() < 0.5 else ""
    return start + " ".join(chance.choices(WORDS, k=count))


def plain(chance: random.Random) -> dict[str, Any]:
    """A body of TGI's, with parameters of all sorts."""
    parameters: dict[str, Any] = {"max_new_tokens": int(200 ** chance.random()) + 1}
    if chance.random() < 0.5:
        parameters |= {"do_sample": True, "temperature": 1.3, "seed": chance.randrange(2**32)}
    if chance.random() < 0.3:
        parameters |= {"repetition_penalty": 1.2, "top_n_tokens": 3, "details": True}
    if chance.random() < 0.3:
        parameters["stop"] = [chance.choice(WORDS)]
    return {"inputs": prompt(chance), "parameters": parameters}


def chat(chance: random.Random, **more: Any) -> dict[str, Any]:
    """A body of OpenAI's."""
    messages = [{"role": "user", "content": prompt(chance)}]
    return {"messages": messages, "max_tokens": 60, "temperature": 1.2, **more}


def generate(chance: random.Random) -> Request:
    priority = str(chance.randrange(3))
    return Request("/generate", plain(chance), headers={"x-priority": priority})


def stream(chance: random.Random) -> Request:
    return Request("/generate_stream", plain(chance), last=b'"generated_text":"')


def chat_stream(chance: random.Random) -> Request:
    return Request("/v1/chat/completions", chat(chance, stream=True), last=b"[DONE]")


def several(chance: random.Random) -> Request:
    body = {"prompt": [prompt(chance), prompt(chance)], "max_tokens": 20, "n": 2}
    return Request("/v1/completions", {**body, "logprobs": 2})


def grammar(chance: random.Random) -> Request:
    kind = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    return Request("/v1/chat/completions", chat(chance, response_format=kind))


def tools(chance: random.Random) -> Request:
    more = {"tools": [TOOL], "tool_choice": "required", "stream": True}
    return Request("/v1/chat/completions", chat(chance, **more), last=b"[DONE]")


def leaving(chance: random.Random) -> Request:
    body = plain(chance)
    body["parameters"] |= {"max_new_tokens": 400}
    path = chance.choice(("/generate", "/generate_stream"))
    return Request(path, body, leave=0.4 * chance.random() ** 2)


def out_of_range(chance: random.Random) -> Request:
    name, value = chance.choice((("temperature", -1), ("top_p", 2), ("max_new_tokens", 0)))
    return Request("/generate", {"inputs": "x", "parameters": {name: value}}, 422)


def too_long(chance: random.Random) -> Request:
    return Request("/generate", {"inputs": "word " * 50_000}, 422)


def bad_grammar(chance: random.Random) -> Request:
    pattern = {"type": "regex", "value": "(" * chance.randint(1, 9)}
    return Request("/generate", {"inputs": "x", "parameters": {"grammar": pattern}}, 422)


def nowhere(chance: random.Random) -> Request:
    return Request(f"/v1/{chance.randrange(10**6)}", {}, 404)


KINDS: Mapping[str, tuple[int, Callable[[random.Random], Request]]] = {  # with their weights
    "generate": (20, generate),
    "stream": (20, stream),
    "chat stream": (15, chat_stream),
    "several": (5, several),
    "grammar": (8, grammar),
    "tools": (8, tools),
    "leaving": (15, leaving),
    "out of range": (4, out_of_range),
    "too long": (1, too_long),
    "bad grammar": (2, bad_grammar),
    "nowhere": (2, nowhere),
}


def draw(chance: random.Random) -> tuple[str, Request]:
    """The next request, and its kind."""
    weights = [weight for weight, _ in KINDS.values()]
    [name] = chance.choices(list(KINDS), weights)
    return name, KINDS[name][1](chance)
