"""Figures computed from known measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.cases import CASES
from benchmarks.h100 import peers, table
from benchmarks.plot import curve, peer_curve, plot
from benchmarks.router.overhead import split

from penstock.bench.summary import summarise


def request(**changes: Any) -> dict[str, Any]:
    """A request of 11 tokens: sent at 1 s, first token at 1.5 s, then one every 100 ms."""
    return {
        "started": 1.0,
        "first": 1.5,
        "last": 2.5,
        "tokens": 11,
        "prompt_tokens": 20,
        "cached_tokens": 4,
        "failure": None,
        "gaps_us": [100_000] * 10,
    } | changes


def test_summary_of_two_requests() -> None:
    figures = summarise([request(), request(started=2.0, first=2.2, last=3.0, tokens=9)])
    assert (figures["seconds"], figures["output_tokens"]) == (2.0, 20)
    assert (figures["output_tokens_per_second"], figures["requests_per_second"]) == (10.0, 1.0)
    assert figures["ttft_ms"]["mean"] == pytest.approx(350)
    assert figures["tpot_ms"]["p50"] == pytest.approx(100)
    assert figures["itl_ms"]["p99"] == pytest.approx(100)
    assert (figures["prompt_tokens"], figures["cached_tokens"]) == (40, 8)


def test_failed_and_cut_requests_count_their_tokens_but_not_their_latency() -> None:
    slow = request(first=9.0, last=10.0, tokens=2)
    figures = summarise([request(), slow | {"failure": "cut"}, slow | {"failure": "HTTP 500"}])
    assert (figures["completed"], figures["cut"], figures["failed"]) == (1, 1, 1)
    assert figures["output_tokens"] == 15 and figures["ttft_ms"]["p99"] == 500
    assert figures["failures"] == {"HTTP 500": 1}


def test_nothing_came_back() -> None:
    lost = request(first=None, last=None, tokens=0, gaps_us=[], failure="connection lost")
    figures = summarise([lost])
    assert figures["output_tokens_per_second"] == 0 and figures["ttft_ms"] is None


def test_router_cost_is_split_into_request_and_token() -> None:
    def run(tokens: int) -> dict[str, float]:
        cpu = 100 * (300e-6 + tokens * 10e-6)
        return {"requests": 100, "router_cpu_seconds": cpu, "output_tokens": 100 * tokens}

    assert split(run(32), run(512)) == {"us_per_token": 10.0, "us_per_request": 300.0}


def result(name: str, streams: int, speed: float, **case: Any) -> dict[str, Any]:
    spread = {"mean": 1.0, "p50": 1.0, "p90": 1.0, "p99": 1.0}
    fields = {"name": name, "streams": streams, "shared_prefix": 0, "prompt": "512"}
    return {
        "case": fields | {"output": "128"} | case,
        "rate": None,
        "output_tokens_per_second": speed,
        "ttft_ms": spread,
        "tpot_ms": spread,
        "itl_ms": None,
        "completed": 1,
        "failed": 0,
        "cut": 0,
        "client_cpu": 0.1,
    }


def test_curve_takes_equal_lengths_in_order_of_streams() -> None:
    cases = [
        result("single", 1, 5.0, prompt="128"),
        result("c32", 32, 30.0),
        result("c8", 8, 10.0),
        result("agent1000", 64, 99.0, shared_prefix=1000),
    ]
    assert curve(cases, "output_tokens_per_second", None) == [(8, 10.0), (32, 30.0)]
    assert curve(cases, "itl_ms", "p99") == []
    engine = {"c8": {"output_tokens_per_second": 9.0}, "single": {"output_tokens_per_second": 1.0}}
    assert peer_curve(cases, engine, "output_tokens_per_second") == [(8, 9.0)]
    assert peer_curve(cases, {}, "ttft_ms") == []


def test_plot_writes_a_picture_or_says_why_not(tmp_path: Path) -> None:
    file, out = tmp_path / "a.json", tmp_path / "a.png"
    file.write_text(json.dumps({"cases": [result("c8", 8, 10.0)]}))
    plot([file], out)
    assert out.read_bytes().startswith(b"\x89PNG")
    file.write_text(json.dumps({"cases": []}))
    with pytest.raises(ValueError, match="no closed-loop case"):
        plot([file], out)


def test_table_compares_with_each_engine() -> None:
    others = peers("llama-3.1-8b")
    assert set(others) == {"vLLM", "SGLang"} and set(others["vLLM"]) == {
        name for name, case in CASES.items() if not case.temperature
    }
    text = table(result("single", 1, 309.0), others)
    assert "Penstock / vLLM 2.00" in text and "Penstock / SGLang 2.01" in text
    assert peers("tiny") == {"vLLM": {}, "SGLang": {}}
