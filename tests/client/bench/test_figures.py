"""Goodput, phases, comparisons and arrivals, from numbers that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.bench.arrivals import Arrivals
from penstock.bench.compare import flat, read_runs, regressions
from penstock.bench.summary import summarise


def request(started: float, first: float, last: float, tokens: int = 11) -> dict[str, Any]:
    return {
        "started": started,
        "first": first,
        "last": last,
        "tokens": tokens,
        "first_tokens": 1,
        "events": tokens,
        "reported": True,
        "prompt_tokens": 100,
        "cached_tokens": 0,
        "failure": None,
        "gaps_us": [],
    }


def test_goodput_counts_requests_that_keep_every_objective() -> None:
    requests = [request(0, 0.1, 1.1), request(0, 0.4, 1.4), request(0, 0.1, 4.0)]
    figures = summarise(requests, objectives={"ttft": 200, "tpot": 150})
    assert figures["goodput"]["requests"] == 1  # the second began late, the third was slow
    assert figures["goodput"]["share"] == pytest.approx(1 / 3, abs=1e-3)
    assert figures["goodput"]["requests_per_second"] == 0.25


def test_phases_are_times_in_which_anybody_was_in_them() -> None:
    figures = summarise([request(0, 1, 2), request(0.5, 1.5, 2.5), request(8, 9, 10)])
    assert figures["prefill_tokens_per_second"] == 300 / 2.5
    assert figures["decode_tokens_per_second"] == 30 / 2.5
    assert figures["concurrency"] == 0.6 and figures["most_in_flight"] == 2


def test_names_of_vllm() -> None:
    names = flat(summarise([request(0, 1, 2)], points=(50, 99.9)))
    assert names["median_ttft_ms"] == 1000 and {"mean_tpot_ms", "p99.9_e2el_ms"} <= names.keys()


def run(**changes: Any) -> dict[str, Any]:
    values = {"label": "c8", "output_tokens_per_second": 100.0, "requests_per_second": 5.0}
    values |= {"ttft_ms": {"p50": 20.0, "p99": 40.0}, "failed": 0}
    return values | changes


def test_worse_is_what_is_beyond_the_tolerance() -> None:
    assert regressions([run()], [run()], 0.0) == []
    assert regressions([run()], [run(output_tokens_per_second=96.0)], 0.05) == []
    (slower,) = regressions([run()], [run(output_tokens_per_second=94.0)], 0.05)
    assert slower == "c8: output_tokens_per_second was 100, is 94 (-6.0 %)"
    (later,) = regressions([run()], [run(ttft_ms={"p50": 20.0, "p99": 60.0})], 0.1)
    assert "ttft_ms p99" in later
    (failed,) = regressions([run()], [run(failed=2)], 0.1)
    assert failed == "c8: failed was 0, is 2"
    assert regressions([run(label="c1")], [run()], 0.1) == [
        "no run of the old file has the label of one of these"
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": [1]}'])
def test_other_files_are_no_results(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="is no result of"):
        read_runs(tmp_path / "a.json")


def test_arrivals_follow_their_rate() -> None:
    poisson = np.diff(Arrivals(rate=50).due(4000, seed=1))
    assert poisson.mean() == pytest.approx(1 / 50, rel=0.1)
    assert poisson.std() == pytest.approx(1 / 50, rel=0.1)
    smooth = np.diff(Arrivals(rate=50, burstiness=100).due(4000, seed=1))
    assert smooth.std() < poisson.std() / 5
    linear = Arrivals(rate=1, end_rate=9).rates(5)
    assert linear.tolist() == [1, 3, 5, 7, 9]
    assert Arrivals(rate=1, end_rate=4, exponential=True).rates(3)[1] == pytest.approx(2)
    with pytest.raises(ValueError, match="rate must be"):
        Arrivals(rate=0)
