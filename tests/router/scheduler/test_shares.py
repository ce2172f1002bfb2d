"""Who asks for much leaves places to who asks for little."""

from __future__ import annotations

import random

from penstock_router.request import GenerationRequest
from penstock_router.scheduler.shares import APART, MOST, REMEMBERED, Shares
from support.scheduling import Loop


def order(shares: Shares, *asked: tuple[str, float]) -> list[str]:
    """Who stands where, of those that came at these times."""
    stand = [(shares.start(client, now), place) for place, (client, now) in enumerate(asked)]
    return [asked[place][0] for _, place in sorted(stand)]


def test_one_that_comes_behind_a_burst_hardly_waits_for_it() -> None:
    queue = order(Shares(), *(("many", 1.0),) * 100, ("few", 1.005))
    assert queue.index("few") == 1
    later = order(Shares(), *(("many", 1.0),) * 100, ("few", 1.0 + 20.5 * APART))
    assert later.index("few") == 21


def test_of_one_client_the_order_never_changes() -> None:
    shares, draw, now = Shares(), random.Random(0), 0.0
    starts = []
    for _ in range(2000):
        now += draw.choice((0.0, 0.001, 0.02, 1.0))
        starts.append(start := shares.start("a", now))
        assert now <= start <= now + MOST
    assert starts == sorted(starts)


def test_who_asks_seldom_or_is_unknown_stands_where_he_comes() -> None:
    shares = Shares()
    times = [2 * APART * number for number in range(5)]
    assert [shares.start("a", now) for now in times] == times
    assert [shares.start("", 1.0) for _ in range(5)] == [1.0] * 5


def test_few_clients_are_remembered() -> None:
    shares = Shares()
    for number in range(10 * REMEMBERED):
        shares.start(str(number), float(number))
    assert len(shares._last) <= REMEMBERED


def test_the_scheduler_admits_by_it() -> None:
    scheduler = Loop().scheduler
    many = [scheduler.submit(GenerationRequest([7], 1, client="many"), 1.0) for _ in range(3)]
    few = scheduler.submit(GenerationRequest([7], 1, client="few"), 1.0 + APART / 2)
    last = scheduler.submit(GenerationRequest([7], 1, client="many", priority=1), 1.0 + APART)
    assert [one.id for one in sorted((*many, few, last), key=lambda one: one.order)] == [
        last.id, many[0].id, few.id, many[1].id, many[2].id,
    ]  # fmt: skip
