"""The campaign of tests/attack in short: nothing that a client sends ends the server or stops it
for others. Times are held against an equal honest load on the same machine, by orders of size.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator

import pytest
from tests.attack.attacks import ATTACKS, Attack
from tests.attack.campaign import HONEST, Outcome, campaign
from tests.attack.target import loopback

from support.server import Server

ORDER = 10.0  # times as long as beside an honest load: an order of size
SECONDS = 4.0
PATIENCE = 90.0  # for a server that each attack stops for a while
# Those that hold connections open, or let a long answer end by itself, fire one shot.
SLOW = ("M1", "M2", "L5", "slowloris")
LEFT_OUT = ("H1-16", "L3")
# Long answers that end by themselves first, to know how long that takes; bodies that are held up;
# long prompts whose every token is scored, and what else has tests of its own.
LONG = ("M1", "chunks", "scores", "sequences", "metrics")


def shortened(attack: Attack) -> Attack:
    return dataclasses.replace(attack, most=1) if attack.id in SLOW else attack


CHOSEN = {attack.id: shortened(attack) for attack in ATTACKS if attack.id not in LEFT_OUT}
IDS = [pytest.param(id, marks=pytest.mark.full if id in LONG else ()) for id in CHOSEN]


@pytest.fixture(scope="module")
def outcomes(demo_server: Server, request: pytest.FixtureRequest) -> Iterator[dict[str, Outcome]]:
    """What each attack that is to be tested did, on one server, one after another."""
    wanted = {
        item.callspec.params.get("attack")
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    attacks = [attack for id, attack in CHOSEN.items() if id in wanted]

    async def run() -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                async for outcome in campaign(loopback(demo_server.url), attacks, SECONDS):
                    found[outcome.attack.id] = outcome
        return found

    yield asyncio.run(run())


@pytest.mark.parametrize("attack", IDS)
def test_an_attack_harms_nobody(outcomes: dict[str, Outcome], attack: str) -> None:
    assert attack in outcomes, f"{list(outcomes)[-1]} took too long, or the server did not live"
    outcome, honest = outcomes[attack], outcomes[HONEST.id].song
    assert not outcome.short, "\n".join(outcome.short)
    assert outcome.song.p99 < ORDER * honest.p99 or outcome.attack.works
    assert outcome.song.worst_health < ORDER * honest.p99


def test_the_honest_load_is_served(outcomes: dict[str, Outcome]) -> None:
    assert set(outcomes[HONEST.id].ends) == {"200"}
