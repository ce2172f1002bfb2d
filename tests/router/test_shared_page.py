"""A page that many ask for at once."""

from __future__ import annotations

import asyncio

import pytest

from penstock_router import shared_page
from penstock_router.shared_page import SharedPage


async def test_all_who_ask_at_once_get_one_page() -> None:
    made: list[int] = []

    def make() -> bytes:
        made.append(len(made))
        return b"%d" % len(made)

    page = SharedPage(make)
    assert set(await asyncio.gather(*(page.get() for _ in range(50)))) == {b"1"}
    assert await page.get() == b"2"  # made after it was asked for


async def test_it_is_made_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    spent = iter((5.0, 7.0, 7.0, 7.0))  # two seconds for the first page
    monkeypatch.setattr(shared_page.asyncio, "sleep", sleep)
    monkeypatch.setattr(shared_page.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(shared_page.time, "thread_time", lambda: next(spent))
    page = SharedPage(lambda: b"")
    for _ in range(2):
        await page.get()
    assert waits[0] <= 0 and waits[1] == 3 * 2.0


async def test_who_leaves_takes_nobody_s_page_along() -> None:
    page = SharedPage(lambda: b"x")
    leaving = asyncio.create_task(page.get())
    staying = asyncio.create_task(page.get())
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == b"x"


async def test_what_goes_wrong_is_said_and_forgotten() -> None:
    answers = [ValueError("no"), b"x"]

    def make() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    page = SharedPage(make)
    with pytest.raises(ValueError, match="no"):
        await page.get()
    assert await page.get() == b"x"
