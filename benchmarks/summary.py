"""From measured requests to the figures of a table."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 99)


def spread(values: list[float], digits: int = 2) -> dict[str, float] | None:
    """Mean and percentiles of some milliseconds; None when there are none."""
    if not values:
        return None
    points = np.percentile(values, PERCENTILES)
    named = {f"p{p}": round(float(v), digits) for p, v in zip(PERCENTILES, points, strict=True)}
    return {"mean": round(float(np.mean(values)), digits)} | named


def summarise(requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Throughput and latency of a run of `load_worker.measure` records.

    Throughput counts every token that arrived, from the first request to the last token; latencies
    count finished requests only. `ttft_ms` runs to the first token's event, `tpot_ms` is the mean
    time a token of a request after its first, `itl_ms` every gap between two events as the
    client saw them (several events in one packet are zeros and a longer gap).
    """
    good = [r for r in requests if r["failure"] is None and r["first"] is not None]
    seen = [r for r in requests if r["last"] is not None]
    tokens = sum(r["tokens"] for r in seen)
    seconds = max((r["last"] for r in seen), default=0.0) - min(
        (r["started"] for r in requests), default=0.0
    )
    failures = Counter(r["failure"] for r in requests if r["failure"] not in (None, "cut"))
    return {
        "requests": len(requests),
        "completed": len(good),
        "failed": sum(failures.values()),
        "cut": sum(r["failure"] == "cut" for r in requests),
        "failures": dict(failures.most_common(5)),
        "seconds": round(seconds, 3),
        "output_tokens": tokens,
        "prompt_tokens": sum(r["prompt_tokens"] or 0 for r in good),
        "cached_tokens": sum(r["cached_tokens"] or 0 for r in good),
        "output_tokens_per_second": round(tokens / seconds, 1) if seconds > 0 else 0.0,
        "requests_per_second": round(len(good) / seconds, 2) if seconds > 0 else 0.0,
        "ttft_ms": spread([(r["first"] - r["started"]) * 1e3 for r in good]),
        "tpot_ms": spread([tpot(r) for r in good if r["tokens"] > 1], 3),
        "itl_ms": spread([gap / 1e3 for r in good for gap in r["gaps_us"]], 3),
        "request_ms": spread([(r["last"] - r["started"]) * 1e3 for r in good]),
    }


def tpot(request: dict[str, Any]) -> float:
    """Milliseconds a token after the first one."""
    return float((request["last"] - request["first"]) / (request["tokens"] - 1) * 1e3)


HEADER = (
    f"{'case':<14}{'streams':>8}{'done':>7}{'failed':>7}{'tok/s':>10}{'req/s':>8}"
    f"{'TTFT p50':>10}{'p99 ms':>9}{'TPOT p50':>10}{'ITL p99':>9}{'client CPU':>11}"
)


def row(name: str, streams: int, figures: dict[str, Any]) -> str:
    """One line of a table under HEADER."""

    def of(what: str, point: str) -> float:
        return float((figures[what] or {}).get(point, "nan"))

    return (
        f"{name:<14}{streams:>8}{figures['completed']:>7}{figures['failed']:>7}"
        f"{figures['output_tokens_per_second']:>10,.0f}{figures['requests_per_second']:>8.1f}"
        f"{of('ttft_ms', 'p50'):>10.1f}{of('ttft_ms', 'p99'):>9.1f}"
        f"{of('tpot_ms', 'p50'):>10.2f}{of('itl_ms', 'p99'):>9.2f}"
        f"{figures.get('client_cpu', float('nan')):>11.2f}"
    )
