"""Large bodies become objects one at a time."""

from __future__ import annotations

import asyncio

import pytest

from penstock_router.api.bodies import AHEAD_SECONDS, PACE_BYTES, SMALL_BYTES, Bodies


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


async def test_large_bodies_share_one_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and however fast they come: by a clock that stands still."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: 100.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    bodies = Bodies(2_000_000)
    parts = 64
    for _ in range(parts):
        await bodies._keep_pace(256 * 1024)
    assert max(waits) == pytest.approx(parts * 256 * 1024 / PACE_BYTES)
    assert len(waits) == parts - int(AHEAD_SECONDS * PACE_BYTES / (256 * 1024))
