"""The load generator against a small real HTTP server: it counts what was sent, and what failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from benchmarks.cases import Case
from benchmarks.load import Target, run_case

from penstock.bench.lengths import Lengths
from support.token_server import TokenServer, running_token_server

OUTPUT = 5


@pytest.fixture
def server() -> Iterator[tuple[TokenServer, Target]]:
    with running_token_server() as (handler, url):
        yield handler, Target(url=url, processes=2, max_seconds=20)


CASE = Case("small", 3, 8, Lengths.parse("6"), Lengths.parse(str(OUTPUT)), 4)


def run(target: Target, **options: Any) -> dict[str, Any]:
    case = options.pop("case", CASE)
    return run_case(target, case, **options)


def test_closed_loop_counts_and_limits(server: tuple[TokenServer, Target]) -> None:
    handler, target = server
    figures = run(target, seed=1)
    assert (figures["completed"], figures["failed"], figures["cut"]) == (8, 0, 0)
    assert figures["output_tokens"] == 8 * OUTPUT
    assert (figures["prompt_tokens"], figures["cached_tokens"]) == (8 * 6, 8 * 3)
    assert handler.most_in_flight == 3
    asked = handler.bodies[0]
    assert asked["ignore_eos"] and asked["stream_options"] == {"include_usage": True}
    assert asked["model"] == "m" and asked["max_tokens"] == OUTPUT
    assert len({tuple(b["prompt"]) for b in handler.bodies}) == 8
    assert len({tuple(b["prompt"][:4]) for b in handler.bodies}) == 1
    spreads = [figures[name] for name in ("ttft_ms", "tpot_ms", "itl_ms", "request_ms")]
    assert all(0 < each["p50"] <= each["p99"] for each in spreads)


def test_open_loop_sends_every_request(server: tuple[TokenServer, Target]) -> None:
    _, target = server
    figures = run(target, rate=200.0, seed=1)
    assert (figures["completed"], figures["rate"]) == (8, 200.0)


def test_failures_are_named_and_not_counted_as_done(server: tuple[TokenServer, Target]) -> None:
    handler, target = server
    handler.behave = lambda index: {0: "refuse", 1: "error"}.get(index, "ok")
    figures = run(target)
    assert (figures["completed"], figures["failed"]) == (6, 2)
    names = sorted(figures["failures"])
    assert names[0].startswith('HTTP 429: {"error"') and "broken" in names[1]


def test_a_run_is_bounded_in_time(server: tuple[TokenServer, Target]) -> None:
    handler, target = server
    handler.behave = lambda index: "hang" if index == 7 else "ok"
    bounded = Target(url=target.url, processes=2, max_seconds=1.5)
    figures = run(bounded)
    assert (figures["completed"], figures["cut"], figures["failed"]) == (7, 1, 0)
