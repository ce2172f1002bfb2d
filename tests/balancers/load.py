"""Clients that go on and on, and what became of each of their requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

JSON = {"Content-Type": "application/json"}
LONG = 60_000  # bytes: more than a balancer keeps of a request unless it is told to
LONGEST = 1_900_000  # nearly all that the server takes: more than a balancer keeps
WORDS = ("river", "mountain", "harbour", "lantern", "orchard", "window", "castle", "garden")


@dataclass
class Sent:
    """A request."""

    begun: float
    ended: float = 0.0
    answered: float | None = None  # when its first byte came
    failure: str = ""


@dataclass
class Clients:
    """All of them."""

    sent: list[Sent] = field(default_factory=list)

    @property
    def failed(self) -> list[Sent]:
        return [one for one in self.sent if one.failure]

    @property
    def ended(self) -> int:
        return sum(one.ended > 0 for one in self.sent)


def conversation(session: int, turn: int) -> dict[str, Any]:
    """Sessions differ from their first words on, and share them among their turns."""
    words = random.Random(session)
    system = " ".join(words.choice(WORDS) for _ in range(60))
    messages = [
        {"role": "system", "content": f"Session {session}: {system}"},
        {"role": "user", "content": f"Question {turn}"},
    ]
    return {"messages": messages, "max_tokens": 8, "model": "tgi", "ignore_eos": True}


async def one(
    http: aiohttp.ClientSession, url: str, body: dict[str, Any], sent: Sent, padding: int = 0
) -> None:
    """Whatever happens is in `sent`. padding: bytes of white space behind the body's JSON."""
    data = json.dumps(body).encode() + b" " * padding
    try:
        async with http.post(f"{url}/v1/chat/completions", data=data, headers=JSON) as answer:
            sent.answered = time.monotonic()
            text = await answer.text()
            if answer.status != 200:
                sent.failure = f"{answer.status}: {text[:200]}"
            elif body.get("stream") and "[DONE]" not in text:
                sent.failure = f"cut: {text[-200:]}"
    except (aiohttp.ClientError, TimeoutError) as error:
        sent.failure = repr(error)
    sent.ended = time.monotonic()


@contextlib.asynccontextmanager
async def under_load(url: str, count: int = 6, long: int = LONG) -> AsyncIterator[Clients]:
    """Requests without a pause while the block runs, a third of them with so many bytes more; all
    are over at its end."""
    clients, stop = Clients(), asyncio.Event()

    async def go_on(number: int) -> None:
        timeout = aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            turn = 0
            while not stop.is_set():
                sent = Sent(time.monotonic())
                clients.sent.append(sent)
                body = conversation(100 * number + turn % 5, turn) | {"stream": turn % 2 == 0}
                await one(http, url, body, sent, long if turn % 3 == 0 else 0)
                turn += 1
                if sent.failure:
                    await asyncio.sleep(0.2)

    tasks = [asyncio.create_task(go_on(number)) for number in range(count)]
    try:
        yield clients
    finally:
        stop.set()
        await asyncio.gather(*tasks)
