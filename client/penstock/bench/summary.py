"""From measured requests to the figures of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 99)
Request = dict[str, Any]  # of `measure`


def spread(
    values: Sequence[float], digits: int = 2, points: Sequence[float] = PERCENTILES
) -> dict[str, float] | None:
    """Mean, deviation and percentiles of some milliseconds; None when there are none."""
    if not len(values):
        return None
    at = np.percentile(values, points)
    named = {f"p{p:g}": round(float(v), digits) for p, v in zip(points, at, strict=True)}
    mean, deviation = float(np.mean(values)), float(np.std(values))
    return {"mean": round(mean, digits), "std": round(deviation, digits)} | named


def summarise(
    requests: list[Request],
    *,
    objectives: Mapping[str, float] | None = None,
    points: Sequence[float] = PERCENTILES,
) -> dict[str, Any]:
    """Throughput and latency of a run of `measure` records.

    Throughput counts every token that arrived, from the first request to the last token; latencies
    count finished requests only. `ttft_ms` runs to the first token's event, `tpot_ms` is the mean
    time a token of a request after its first event, `itl_ms` every gap between two tokens as the
    client saw them (several events in one packet are zeros and a longer gap).
    objectives: milliseconds that `ttft`, `tpot` and `e2el` may take, for `goodput`.
    """
    good = [r for r in requests if r["failure"] is None and r["first"] is not None]
    seen = [r for r in requests if r["last"] is not None]
    tokens = sum(r["tokens"] for r in seen)
    begin = min((r["started"] for r in requests), default=0.0)
    seconds = max((r["last"] for r in seen), default=begin) - begin
    failures = Counter(r["failure"] for r in requests if r["failure"] not in (None, "cut"))
    prompt_tokens = sum(r["prompt_tokens"] or 0 for r in good)
    figures = {
        "requests": len(requests),
        "completed": len(good),
        "failed": sum(failures.values()),
        "cut": sum(r["failure"] == "cut" for r in requests),
        "failures": dict(failures.most_common(5)),
        "seconds": round(seconds, 3),
        "output_tokens": tokens,
        "prompt_tokens": prompt_tokens,
        "cached_tokens": sum(r["cached_tokens"] or 0 for r in good),
        "output_tokens_per_second": _per(tokens, seconds),
        "total_tokens_per_second": _per(tokens + prompt_tokens, seconds),
        "requests_per_second": _per(len(good), seconds, 2),
        "ttft_ms": spread([(r["first"] - r["started"]) * 1e3 for r in good], 2, points),
        "tpot_ms": spread([tpot(r) for r in good if r["tokens"] > first_tokens(r)], 3, points),
        "itl_ms": spread(_gaps_ms(good), 3, points),
        "request_ms": spread([(r["last"] - r["started"]) * 1e3 for r in good], 2, points),
        **phases(good, seconds),
        "tokens_an_event": round(tokens / max(sum(r.get("events", 0) for r in seen), 1), 3),
        "tokens_reported": all(r.get("reported", True) for r in good),
    }
    return figures | ({"goodput": goodput(good, objectives, seconds)} if objectives else {})


def _gaps_ms(good: list[Request]) -> Any:
    """All gaps, `[n]`."""
    gaps = [np.asarray(r["gaps_us"], dtype=np.float64) for r in good if r["gaps_us"]]
    return np.concatenate(gaps) / 1e3 if gaps else []


def first_tokens(request: Request) -> int:
    """Tokens that the first event brought."""
    return int(request.get("first_tokens", 1))


def tpot(request: Request) -> float:
    """Milliseconds a token after those of the first event."""
    after = request["tokens"] - first_tokens(request)
    return float((request["last"] - request["first"]) / after * 1e3)


def phases(good: list[Request], seconds: float) -> dict[str, Any]:
    """Prompts and answers apart, and how many requests were in flight.

    Prompt tokens over the time in which any request waited for its first token, and tokens behind
    the first over the time in which any was between its first and its last.
    """
    waiting = _covered([(r["started"], r["first"]) for r in good])
    decoding = _covered([(r["first"], r["last"]) for r in good])
    after = sum(max(r["tokens"] - first_tokens(r), 0) for r in good)
    spans = [(r["started"], r["last"]) for r in good]
    busy = sum(end - begin for begin, end in spans)
    return {
        "prefill_tokens_per_second": _per(sum(r["prompt_tokens"] or 0 for r in good), waiting),
        "decode_tokens_per_second": _per(after, decoding),
        "concurrency": _per(busy, seconds, 2),
        "most_in_flight": _most_at_once(spans),
    }


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that at least one of the spans covers."""
    covered, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered


def _most_at_once(spans: list[tuple[float, float]]) -> int:
    """How many spans overlap at most; one that begins when another ends does not."""
    changes = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def goodput(good: list[Request], objectives: Mapping[str, float], seconds: float) -> dict[str, Any]:
    """Requests that kept all objectives. One of a single token keeps that of `tpot`."""

    def kept(r: Request) -> bool:
        took = {"ttft": (r["first"] - r["started"]) * 1e3, "e2el": (r["last"] - r["started"]) * 1e3}
        took["tpot"] = tpot(r) if r["tokens"] > first_tokens(r) else 0.0
        return all(took[name] <= limit for name, limit in objectives.items())

    kept_ones = sum(map(kept, good))
    return {
        "objectives_ms": dict(objectives),
        "requests": kept_ones,
        "share": round(kept_ones / max(len(good), 1), 4),
        "requests_per_second": _per(kept_ones, seconds, 2),
    }


def _per(amount: float, seconds: float, digits: int = 1) -> float:
    return round(amount / seconds, digits) if seconds > 0 else 0.0


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
