"""Holds a result against an older one: what became worse by more than a tolerance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPREADS = {"ttft_ms": "ttft", "tpot_ms": "tpot", "itl_ms": "itl", "request_ms": "e2el"}
COMPARED = ("output_tokens_per_second", "requests_per_second")
POINTS = ("p50", "p99")  # of latencies


def flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures under the names of vLLM's result files: p99_ttft_ms, mean_tpot_ms, …"""
    found: dict[str, float] = {}
    for key, name in SPREADS.items():
        for point, value in (figures.get(key) or {}).items():
            found[f"{'median' if point == 'p50' else point}_{name}_ms"] = value
    return found


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs of a result file. Raises ValueError for any other file; OSError."""
    try:
        runs = json.loads(path.read_text())["runs"]
    except (ValueError, KeyError, TypeError):
        runs = None
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise ValueError(f"{path} is no result of `penstock bench serve --out`")
    return runs


def regressions(
    old: list[dict[str, Any]], new: list[dict[str, Any]], tolerance: float
) -> list[str]:
    """A sentence for each figure that is worse by more than the tolerance, a share of the old one.

    Runs are matched by their labels. What only one of the two has is not compared; where no run is
    in both, that is a sentence too.
    """
    before = {run.get("label"): run for run in old}
    pairs = [(before[run["label"]], run) for run in new if run["label"] in before]
    if not pairs:
        return ["no run of the old file has the label of one of these"]
    found = []
    for was, now in pairs:
        for name in COMPARED:
            if name in was and now[name] < was[name] * (1 - tolerance):
                found.append(_sentence(now, name, was[name], now[name]))
        for name in SPREADS:
            for point in POINTS:
                a, b = ((run.get(name) or {}).get(point) for run in (was, now))
                if a is not None and b is not None and b > a * (1 + tolerance):
                    found.append(_sentence(now, f"{name} {point}", a, b))
        if now["failed"] > was.get("failed", 0):
            found.append(_sentence(now, "failed", was.get("failed", 0), now["failed"]))
    return found


def _sentence(run: Mapping[str, Any], name: str, was: float, now: float) -> str:
    change = f" ({100 * (now / was - 1):+.1f} %)" if was else ""
    return f"{run['label']}: {name} was {was:g}, is {now:g}{change}"
