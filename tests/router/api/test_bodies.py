"""Large bodies become objects one at a time."""

from __future__ import annotations

import asyncio

import pytest

from penstock_router.api.bodies import SMALL_BYTES, Bodies


@pytest.mark.parametrize(("size", "between"), [(SMALL_BYTES, False), (SMALL_BYTES + 1, True)])
async def test_others_are_served_between_large_bodies(size: int, between: bool) -> None:
    bodies = Bodies(2_000_000)
    happened: list[str] = []

    async def parse() -> None:
        async with bodies.turn(size):
            happened.append("body")

    async def other() -> None:
        happened.append("other")

    def later() -> None:
        tasks.append(asyncio.create_task(other()))

    tasks = [asyncio.create_task(parse()) for _ in range(2)]
    asyncio.get_running_loop().call_soon(later)  # comes while the first body is parsed
    await asyncio.gather(*tasks)
    await asyncio.gather(*tasks)  # the other one is among them by now
    assert happened == (["body", "other", "body"] if between else ["body", "body", "other"])
