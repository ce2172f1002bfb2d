"""Requests that end together go on a few a turn, so that others have turns between them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest

from penstock_router.api.awakening import AT_ONCE, Awakening
from penstock_router.api.request_context import RequestContext
from penstock_router.api.request_stats import RequestStats
from router.api.conftest import beside_only


async def turns_of(futures: list[asyncio.Future[None]]) -> list[int]:
    """How many are done after each turn of the event loop, until all are."""
    seen = [sum(future.done() for future in futures)]
    while seen[-1] < len(futures):
        await asyncio.sleep(0)
        seen.append(sum(future.done() for future in futures))
    return seen


async def test_few_a_turn_and_first_come_first_served() -> None:
    awakening, loop = Awakening(), asyncio.get_running_loop()
    futures: list[asyncio.Future[None]] = [loop.create_future() for _ in range(5 * AT_ONCE)]
    for future in futures:
        awakening.wake(future, "a")
    counts = await turns_of(futures)
    assert counts[0] == AT_ONCE
    assert all(later - now <= AT_ONCE for now, later in zip(counts, counts[1:], strict=False))
    late: asyncio.Future[None] = loop.create_future()
    awakening.wake(late, "a")
    await late


async def test_who_has_one_does_not_stand_behind_who_has_many() -> None:
    awakening, loop = Awakening(), asyncio.get_running_loop()
    many: list[asyncio.Future[None]] = [loop.create_future() for _ in range(200)]
    for future in many:
        awakening.wake(future, "many")
    for client in ("few", "another"):
        await awakening.turn(client)
    assert sum(future.done() for future in many) <= 4 * AT_ONCE
    await turns_of(many)


async def test_who_left_takes_nobodys_turn() -> None:
    awakening, loop = Awakening(), asyncio.get_running_loop()
    gone: list[asyncio.Future[None]] = [loop.create_future() for _ in range(100)]
    for future in gone:
        awakening.wake(future, "a")
        future.cancel()
    one: asyncio.Future[None] = loop.create_future()
    awakening.wake(one, "a")
    await asyncio.wait_for(one, 60)


@beside_only
async def test_a_request_begins_when_its_client_has_a_turn(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await serve()
    starting = client.runner.server.starting
    asked: list[str] = []
    turn = starting.turn

    async def noting(of: str) -> None:
        asked.append(of)
        await turn(of)

    monkeypatch.setattr(starting, "turn", noting)
    answer = await client.raw(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404") and asked == ["127.0.0.1"]


@beside_only
async def test_answers_of_one_step_are_made_a_few_a_turn(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = itertools.count()
    turn = [0]

    async def count_turns() -> None:
        while True:
            turn[0] = next(turns)
            await asyncio.sleep(0)

    made: Counter[int] = Counter()
    succeed = RequestContext.succeed

    def noting(self: RequestContext, *rest: Any) -> RequestStats:
        made[turn[0]] += 1
        return succeed(self, *rest)

    monkeypatch.setattr(RequestContext, "succeed", noting)
    client = await serve()
    client.engine.hold = True
    body = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
    tasks = [asyncio.create_task(client.post("/generate", body)) for _ in range(16)]
    async with asyncio.timeout(60):
        while client.engine.live < 16:
            await asyncio.sleep(0.01)
    counting = asyncio.create_task(count_turns())
    await asyncio.sleep(0)
    client.engine.release()  # ends all of them at once
    assert [status for status, _ in await asyncio.gather(*tasks)] == [200] * 16
    counting.cancel()
    assert sum(made.values()) == 16
    # A turn of the counter may fall between two of the loop that end some.
    assert max(made.values()) <= 2 * AT_ONCE
