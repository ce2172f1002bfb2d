"""What an attacker can do with one or a few connections, and what is a right answer to it.

A shot is fired and looked at; the table in attacks.py says how many of them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache

from tests.attack.target import Target
from tests.attack.wire import CLOSED, LEFT, REFUSED, Seen, answer, connection, exchange, request

SECRET = b"s3cr3t-of-a-client"  # must come back in no answer
VERSION = re.compile(r"aiohttp|python|\d", re.IGNORECASE)  # must not be in a Server header
BUSY = frozenset({"429", "503"})  # right as well while others press
HELD_SECONDS = 1.5  # for which a connection is kept open that does nothing useful
SETTLE_SECONDS = 20.0
LENGTHS = (400, 1600)  # tokens of a long answer
STORY_SECONDS = 90.0  # for it, on a machine with ten times more to do than cores
ENOUGH = 1.0  # seconds that it takes, to see whether it ended early

Fire = Callable[[Target], Awaitable[list[Seen]]]
One = Callable[[Target], Awaitable[Seen]]


@dataclass(frozen=True, slots=True)
class Shot:
    """One thing to send.

    name: what it is, for the report. right: the statuses (or ends, see `wire.Seen`) that are right
    for it when nothing else runs.
    """

    name: str
    fire: Fire
    right: frozenset[str]

    def fault(self, seen: Seen, crowded: bool) -> str | None:
        """What is wrong with an answer, in words; None if nothing is."""
        if seen.end not in (self.right | BUSY if crowded else self.right):
            return f"{seen.end}, not {' or '.join(sorted(self.right))}"
        if not seen.end.isdigit():
            return None
        if VERSION.search(seen.headers.get("server", "")):
            return f"the Server header says {seen.headers['server']!r}"
        if SECRET in seen.body:
            return "the answer repeats a credential"
        if seen.end >= "400" and not _explains(seen):
            return f"{seen.end} without a sentence in JSON: {seen.body[:60]!r}"
        return None


def _explains(seen: Seen) -> bool:
    """Whether an error says in our shape what was wrong."""
    try:
        return bool(json.loads(seen.body)["error"])
    except (ValueError, KeyError, TypeError):
        return False


def post(name: str, path: str, body: Callable[[], bytes], *right: str) -> Shot:
    """One POST with this body, which is built when it is first needed and kept."""
    data = cache(body)
    return _shot(name, lambda target: exchange(target, request(target, path, data())), 1, right)


def raw(name: str, data: bytes, *right: str) -> Shot:
    """These very bytes; `HOST` in them stands for host and port."""
    return _shot(name, lambda target: exchange(target, _addressed(data, target)), 1, right)


def flood(name: str, data: bytes, count: int, *right: str) -> Shot:
    """So many connections at once, each with these bytes."""
    right = (*right, *BUSY, "closed")
    return _shot(name, lambda target: exchange(target, _addressed(data, target)), count, right)


def hold(name: str, data: bytes, count: int, *, deaf: bool = False) -> Shot:
    """So many connections that send this (perhaps nothing) and stay open without another byte.

    The server may keep them, or close those over its cap. deaf: they read nothing either.
    """

    async def one(target: Target) -> Seen:
        async with connection(target, deaf) as (reader, writer):
            writer.write(_addressed(data, target))
            await asyncio.sleep(HELD_SECONDS)
            return CLOSED if reader.at_eof() else LEFT

    return _shot(name, one, count, ("left", "closed"))


def trickle(name: str, head: bytes, piece: bytes, count: int) -> Shot:
    """So many connections that send a beginning and then a piece now and then."""

    async def one(target: Target) -> Seen:
        async with connection(target) as (reader, writer):
            writer.write(_addressed(head, target))
            end = time.monotonic() + HELD_SECONDS
            while time.monotonic() < end:
                writer.write(piece)
                await asyncio.sleep(0.1)
            return CLOSED if reader.at_eof() else LEFT

    return _shot(name, one, count, ("left", "closed"))


def reset(name: str, data: bytes, count: int) -> Shot:
    """So many connections that send this and are gone before an answer can come."""

    async def one(target: Target) -> Seen:
        async with connection(target) as (_, writer):
            writer.write(_addressed(data, target))
            await asyncio.sleep(0)
            return LEFT

    return _shot(name, one, count, ("left", "closed"))


def desert(name: str, behind: bytes, count: int = 3) -> Shot:
    """So many long generations, each with more bytes behind its request, then gone.

    What they started must end long before it would have ended by itself: how long that takes is
    measured first, with as many honest clients.
    """

    async def fire(target: Target) -> list[Seen]:
        for tokens in LENGTHS:  # a fast server needs longer ones, else looking takes as long
            story, start = long_story(target, tokens), time.monotonic()
            honest = await asyncio.gather(
                *(exchange(target, story, STORY_SECONDS) for _ in range(count))
            )
            natural = time.monotonic() - start
            if any(seen.end != "200" for seen in honest):
                return honest
            if natural > ENOUGH:
                break
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(count):
                _, writer = await stack.enter_async_context(connection(target))
                writer.write(story + _addressed(behind, target))
            if not await _running(target, at_least=count):
                return [Seen("never ran")]
            start = time.monotonic()
        await _running(target, at_most=1)  # which is the canary's
        return [LEFT if time.monotonic() - start < natural / 3 else Seen("ran to its end")]

    return Shot(name, fire, frozenset({"left"}))


def smuggle(name: str, data: bytes) -> Shot:
    """A request whose length can be read in two ways, with another one hidden in its body.

    Right is one refusal and a closed connection: a second answer means that it got through.
    """

    async def one(target: Target) -> Seen:
        async with connection(target) as (reader, writer):
            writer.write(_addressed(data, target))
            first = await answer(reader)
            if first.end.isdigit() and (await answer(reader, 0.5)).end.isdigit():
                return Seen("a second answer")
            return first

    return _shot(name, one, 1, ("400", "closed"))


def long_story(target: Target, tokens: int = LENGTHS[0]) -> bytes:
    """A request for an answer of so many tokens."""
    parameters = {"max_new_tokens": tokens, "ignore_eos": True, "do_sample": False}
    body = {"inputs": "Tell me a story.", "parameters": parameters}
    return request(target, "/generate", json.dumps(body).encode())


def _shot(name: str, one: One, count: int, right: tuple[str, ...]) -> Shot:
    async def guarded(target: Target) -> Seen:
        try:
            return await one(target)
        except ConnectionRefusedError:
            return REFUSED
        except ConnectionError:
            return CLOSED

    async def fire(target: Target) -> list[Seen]:
        return await asyncio.gather(*(guarded(target) for _ in range(count)))

    return Shot(name, fire, frozenset(right))


def _addressed(data: bytes, target: Target) -> bytes:
    return data.replace(b"HOST", target.authority)


async def _running(target: Target, at_least: int = 0, at_most: int = 1 << 30) -> bool:
    """Whether the number of running sequences comes to be within bounds in SETTLE_SECONDS."""
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:
        seen = await exchange(target, request(target, "/metrics"))
        found = re.search(rb"^penstock_running_sequences (\d+)", seen.body, re.MULTILINE)
        if found and at_least <= int(found[1]) <= at_most:
            return True
        await asyncio.sleep(0.02)
    return False
