"""Sends the traffic and keeps account: every request ends in a way that its kind allows, or is one
that the report names."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp
from tests.attack.target import Target
from tests.soak.kinds import Request, draw
from tests.soak.memory import blocks_and_sequences, held

SAMPLE = 1.0  # seconds between two looks at the memory
PATIENCE = 120.0  # seconds for an answer
QUIET = 20.0  # seconds for the server to have nothing left when all have their answers
SHOWN = 10  # of what went wrong
ENOUGH = 100  # wrong ends; then it is over


@dataclass(slots=True)
class Account:
    """What was sent and how it ended."""

    sent: Counter[str] = field(default_factory=Counter)  # by kind
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind and end
    wrong: list[str] = field(default_factory=list)
    samples: list[tuple[int, int]] = field(default_factory=list)  # requests ended, bytes held
    left: dict[str, float] = field(default_factory=dict)  # in the server, when all was over
    gone: str = ""  # why the server could not be asked for that

    @property
    def faults(self) -> list[str]:
        """Why it was no good; nothing where every request is accounted for and blocks are home."""
        found = [self.gone, *self.wrong] if self.gone else list(self.wrong)
        ends = sum(self.ended.values())
        if ends + len(self.wrong) != self.sent.total():
            found.append(f"{self.sent.total()} requests were sent, {ends} have ended")
        return found + [
            f"{name} is {value:g} at rest" for name, value in self.left.items() if value
        ]


async def soak(target: Target, seconds: float, clients: int, seed: int) -> Account:
    """Random traffic for so long, then wait until the server is quiet."""
    account = Account()
    end = time.monotonic() + seconds
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(target.url, timeout=timeout, connector=connector) as session:
        memory = asyncio.create_task(_watch(target, account))
        crowd = [
            _client(session, account, random.Random(f"{seed} {n}"), end) for n in range(clients)
        ]
        await asyncio.gather(*crowd)
        memory.cancel()
        try:
            await _quiet(session, account)
        except aiohttp.ClientError as error:
            account.gone = f"the server is gone: {error}"
    return account


async def _watch(target: Target, account: Account) -> None:
    while True:
        bytes_held = await asyncio.to_thread(held, target)
        account.samples.append((account.ended.total(), bytes_held))
        await asyncio.sleep(SAMPLE)


async def _client(
    session: aiohttp.ClientSession, account: Account, chance: random.Random, end: float
) -> None:
    while time.monotonic() < end and len(account.wrong) < ENOUGH:
        kind, request = draw(chance)
        account.sent[kind] += 1
        try:
            how = await _one(session, request)
        except (AssertionError, aiohttp.ClientError, TimeoutError) as error:
            account.wrong.append(f"{kind}: {type(error).__name__}: {str(error)[:300]}")
        else:
            account.ended[kind, how] += 1
        await asyncio.sleep(0.05 * chance.random())


async def _one(session: aiohttp.ClientSession, request: Request) -> str:
    """How it ended. Raises AssertionError where its kind does not allow that."""
    if request.leave is None:
        return await _answer(session, request)
    try:
        async with asyncio.timeout(request.leave):
            return await _answer(session, request)
    except TimeoutError:
        return "left"


async def _answer(session: aiohttp.ClientSession, request: Request) -> str:
    async with session.post(request.path, json=request.body, headers=request.headers) as reply:
        body = await reply.read()
        if reply.status == 429:
            assert reply.headers.get("Retry-After"), "429 without Retry-After"
            return "turned away"
        assert reply.status == request.status, (
            f"{reply.status}, not {request.status}: {body[:200]!r}"
        )
        assert request.last in body.strip().rpartition(b"data:")[2], f"no end: {body[-200:]!r}"
        return "done" if reply.status == 200 else "refused"


async def _quiet(session: aiohttp.ClientSession, account: Account) -> None:
    until = time.monotonic() + QUIET
    while True:
        async with session.get("/metrics") as reply:
            account.left = blocks_and_sequences(await reply.text())
        if not any(account.left.values()) or time.monotonic() > until:
            return
        await asyncio.sleep(0.2)
