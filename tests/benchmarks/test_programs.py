"""Ratios of runs, and how many users fit a cache."""

from __future__ import annotations

import pytest
from benchmarks.program_workloads import Words, workloads
from benchmarks.programs import Timed, ratios, shown, users

import penstock.lang as sgl


def run(cache: bool, threads: int, seconds: float, computed: float) -> Timed:
    return Timed("agent", cache, threads, 8, seconds, computed, seconds)


def test_ratios() -> None:
    runs = [run(True, 1, 1.0, 50), run(False, 1, 2.0, 100)]
    runs += [run(True, 8, 0.25, 20), run(False, 8, 1.0, 100)]
    table = ratios(runs, {"agent": 5.0, "other": None})
    assert table["agent"] == {
        "claim": 5.0,
        "one": 2.0,
        "many": 4.0,
        "computed": 5.0,
        "batch_by_sequential": 4.0,
    }
    assert set(table["other"].values()) == {None}
    assert "| agent | 5.0 | 2.0 | 4.0 | 5.0 | 4.0 |" in shown(table, [])


def test_users() -> None:
    """500 tokens are 31 whole blocks of 16, which all share; the rest is each one's own."""
    [first, *_] = users({"kv_block_size": 16, "kv_blocks": 1000})
    assert first["own_tokens"] == 100
    assert first["apart"] == 1000 // 38 and first["together"] == (1000 - 31) // (38 - 31)
    assert first["ratio"] == pytest.approx(first["together"] / first["apart"], abs=0.01)


def test_every_workload_is_a_program() -> None:
    for workload in workloads(Words(1, 0.1, 2.0)):
        trace = workload.program.trace()
        assert isinstance(workload.program, sgl.Program) and workload.rows(2)[1]
        assert trace.parts or workload.name == "100 suffixes"


def test_words_have_the_size_that_is_asked_for() -> None:
    words = Words(1, 0.5, 2.0)
    assert len(words.text(400).split()) == 100 and len(words.text(400, scaled=False).split()) == 200
