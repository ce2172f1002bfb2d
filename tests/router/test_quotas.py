"""Limits of API keys, with a clock of the test's."""

from __future__ import annotations

import random

import pytest

from penstock_proto.api_keys import ApiKey
from penstock_router.quotas import Quotas


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def quotas(clock: Clock, **limits: int) -> Quotas:
    return Quotas([ApiKey(name="a", sha256="", **limits), ApiKey(name="b", sha256="")], clock)  # type: ignore[arg-type]


def value(one: Quotas, series: str, key: str = "a") -> int:
    for line in one.samples():
        if line.startswith(f'penstock_key_{series}_total{{key="{key}"}}'):
            return int(line.rsplit(" ", 1)[1])
    raise AssertionError(series)


def test_requests_a_minute_fill_evenly(clock: Clock) -> None:
    one = quotas(clock, requests_per_minute=6)
    for number in range(6):
        verdict = one.begin(number, "a")
        assert not verdict.refused and verdict.requests is not None
        assert verdict.requests.left == 5 - number
        assert verdict.requests.full_in == pytest.approx(10 * (number + 1))
    refused = one.begin(7, "a")
    assert refused.refused == "requests_per_minute" and refused.wait == pytest.approx(10)
    clock.now += 9.9
    assert one.begin(8, "a").refused
    clock.now += 0.2
    assert not one.begin(9, "a").refused and one.begin(10, "a").refused
    clock.now += 3600
    assert sum(not one.begin(number, "a").refused for number in range(20, 40)) == 6
    assert not one.begin(50, "b").refused
    assert value(one, "requests") == 13 and value(one, "refused") == 3 + 14


def test_tokens_are_reserved_and_put_right(clock: Clock) -> None:
    one = quotas(clock, tokens_per_minute=600)
    assert not one.begin(1, "a").refused and not one.reserve(1, 500).refused
    assert not one.begin(2, "a").refused
    refused = one.reserve(2, 200)
    assert refused.refused == "tokens_per_minute" and refused.wait == pytest.approx(10)
    assert refused.tokens is not None and refused.tokens.left == 100
    one.settle(2, 0, 0)
    one.settle(1, 30, 20)
    assert not one.begin(3, "a").refused
    verdict = one.reserve(3, 550)
    assert not verdict.refused and verdict.tokens is not None and verdict.tokens.left == 0
    one.settle(3, 50, 500)
    assert one.begin(4, "a").refused == "tokens_per_minute"
    assert (value(one, "prompt_tokens"), value(one, "generated_tokens")) == (80, 520)


def test_what_is_more_than_a_minute_takes_it_all_and_what_it_took_is_owed(clock: Clock) -> None:
    one = quotas(clock, tokens_per_minute=60)
    assert not one.begin(1, "a").refused and not one.reserve(1, 10_000).refused
    one.settle(1, 100, 80)  # three minutes of tokens
    verdict = one.begin(2, "a")
    assert verdict.refused == "tokens_per_minute" and verdict.wait == pytest.approx(121)
    clock.now += 121.1
    assert not one.begin(3, "a").refused


def test_requests_at_a_time(clock: Clock) -> None:
    one = quotas(clock, concurrent_requests=2)
    assert [one.begin(number, "a").refused for number in range(3)] == [
        "",
        "",
        "concurrent_requests",
    ]
    one.settle(2, 0, 0)  # it was refused, and gives nothing back
    assert one.begin(3, "a").refused
    one.settle(0, 0, 0)
    one.settle(0, 0, 0)
    assert not one.begin(4, "a").refused and one.begin(5, "a").refused


def test_a_refused_request_takes_nothing_of_the_minute(clock: Clock) -> None:
    one = quotas(clock, requests_per_minute=5, concurrent_requests=1)
    assert not one.begin(1, "a").refused
    assert all(one.begin(number, "a").refused for number in range(2, 50))
    one.settle(1, 0, 0)
    verdict = one.begin(51, "a")
    assert not verdict.refused and verdict.requests is not None and verdict.requests.left == 3


def test_other_keys_keep_what_is_used(clock: Clock) -> None:
    one = quotas(clock, requests_per_minute=4)
    for number in range(4):
        assert not one.begin(number, "a").refused
    one.replace([ApiKey(name="a", sha256="", requests_per_minute=8)])
    assert one.begin(4, "a").refused, "a file read again must not fill the bucket"
    assert 'key="b"' not in "\n".join(one.samples()) and value(one, "requests") == 4
    one.replace([ApiKey(name="c", sha256="")])
    for number in range(4):
        one.settle(number, 1, 1)  # of a name that is gone
    assert not one.open and not one.begin(9, "a").refused
    assert value(one, "requests", "c") == 0
    one.replace([])
    assert not list(one.samples())


@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_takes_more_than_was_allowed(clock: Clock, seed: int) -> None:
    """Over any time: what the bucket held and what flowed in, and the last request's debt."""
    chance = random.Random(seed)
    per_minute, most = 600, 90
    one = quotas(clock, tokens_per_minute=per_minute, concurrent_requests=5)
    began, taken, running = clock.now, 0, {}
    for number in range(2000):
        clock.now += chance.expovariate(2)
        if running and chance.random() < 0.5:
            key = chance.choice(sorted(running))
            used = chance.randint(0, running.pop(key))
            one.settle(key, used, 0)
            taken += used
        elif not one.begin(number, "a").refused:
            tokens = chance.randint(1, most)
            if one.reserve(number, tokens).refused:
                one.settle(number, 0, 0)
            else:
                running[number] = tokens
        assert len(running) <= 5
        assert taken + sum(running.values()) <= per_minute * (1 + (clock.now - began) / 60) + 1
    for number in running:
        one.settle(number, 0, 0)
    assert not one.open
