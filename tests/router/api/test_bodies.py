"""Large bodies become objects one at a time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock_router.api.bodies import PACE_BYTES, SMALL_BYTES, Bodies
from penstock_router.api.body_pace import AHEAD_SECONDS, Pace
from penstock_router.api.no_numbers import place_of_no_number


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


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/chat/completions", '{"messages": [], "logit_bias": {"5": NaN}}', "logit_bias.5"),
        ("/v1/completions", '{"prompt": "x", "min_p": Infinity}', "min_p"),
        ("/generate", '{"inputs": "x", "parameters": {"top_p": -Infinity}}', "parameters.top_p"),
        ("/generate", '{"text": "x", "sampling_params": [{"top_p": 1e999}]}',
         "sampling_params[0].top_p"),
        ("/v1/messages", '{"temperature": NaN}', "temperature"),
        ("/tokenize", '{"prompt": NaN}', "prompt"),
    ],
)  # fmt: skip
async def test_what_is_no_number_is_named(serve: Any, path: str, body: str, place: str) -> None:
    client = await serve()
    headers = {"content-type": "application/json"}
    url = client.url + path
    async with client.session.post(url, data=body, headers=headers) as answer:
        assert answer.status == 422
        assert f"`{place}` must be a finite number" in await answer.text()
    async with client.session.post(url, data=body + "}", headers=headers) as answer:
        assert answer.status == 400
        assert "not valid JSON" in await answer.text()


def test_a_place_is_found_whatever_stands_around_it() -> None:
    deep = "[" * 500 + "NaN" + "]" * 500
    place, value = place_of_no_number(deep.encode()) or ("", "")
    assert place == "".join(["[0]"] * 43)[:128] and value == "NaN"
    assert place_of_no_number(b"[" * 100_000) is None
    assert place_of_no_number(b'{"a": 1e999, "b": NaN}') == ("a", "Infinity")
    assert place_of_no_number(json.dumps({"k" * 999: float("nan")}).encode()) == ("k" * 128, "NaN")
    assert place_of_no_number(b'{"a": "NaN", "b": }') is None


async def test_large_bodies_share_one_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and however fast they come: by a clock that stands still."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: 100.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    pace = Pace(PACE_BYTES)
    parts = 64
    for _ in range(parts):
        await pace.keep(256 * 1024)
    assert max(waits) == pytest.approx(parts * 256 * 1024 / PACE_BYTES)
    assert len(waits) == parts - int(AHEAD_SECONDS * PACE_BYTES / (256 * 1024))
