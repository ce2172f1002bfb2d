"""A run's figures as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.bench.compare import SPREADS

LINES = (  # what it is called, its key, how it is written
    ("completed", "completed", ",d"),
    ("failed", "failed", ",d"),
    ("cut before their end", "cut", ",d"),
    ("seconds", "seconds", ",.2f"),
    ("prompt tokens", "prompt_tokens", ",d"),
    ("  of them cached", "cached_tokens", ",d"),
    ("output tokens", "output_tokens", ",d"),
    ("requests a second", "requests_per_second", ",.2f"),
    ("output tokens a second", "output_tokens_per_second", ",.1f"),
    ("all tokens a second", "total_tokens_per_second", ",.1f"),
    ("prefill tokens a second", "prefill_tokens_per_second", ",.1f"),
    ("decode tokens a second", "decode_tokens_per_second", ",.1f"),
    ("requests in flight, mean", "concurrency", ",.2f"),
    ("requests in flight, most", "most_in_flight", ",d"),
    ("tokens an event", "tokens_an_event", ",.2f"),
    ("client CPU, of a core", "client_cpu", ",.2f"),
)
BUSY_CLIENT = 0.7  # of a core: beyond, the client may be what is measured


def report(run: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Lines for a terminal. metrics: which latencies, of ttft, tpot, itl and e2el."""
    lines = [f"{run['label']}: {run['requests']:,} requests"]
    lines += [f"  {name:<28}{run[key]:>14{form}}" for name, key, form in LINES if key in run]
    if goodput := run.get("goodput"):
        limits = ", ".join(f"{k} {v:g} ms" for k, v in goodput["objectives_ms"].items())
        lines.append(
            f"  {'goodput, requests a second':<28}{goodput['requests_per_second']:>14,.2f}"
        )
        lines.append(f"  {'  share of requests':<28}{goodput['share']:>14.1%}  ({limits})")
    lines += [_gpu(index, gpu) for index, gpu in enumerate(run.get("gpus") or ())]
    lines += _latencies(run, metrics)
    lines += [f"  {count} x {failure}" for failure, count in run["failures"].items()]
    return "\n".join(lines + _remarks(run))


def _gpu(index: int, gpu: Mapping[str, float]) -> str:
    """Not every card tells everything."""
    busy = f"{gpu['busy_percent']:.1f}%" if "busy_percent" in gpu else "not told"
    more = [f"{gpu['watts']:.0f} W"] if "watts" in gpu else []
    more += [f"{gpu['memory_mib']:,.0f} MiB"] if "memory_mib" in gpu else []
    return f"  {f'GPU {index} busy':<28}{busy:>14}  {', '.join(more)}".rstrip()


def _latencies(run: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    rows = [(name, run[key]) for key, name in SPREADS.items() if name in metrics and run.get(key)]
    if not rows:
        return []
    points = [point for point in rows[0][1] if point != "std"]
    head = f"  {'milliseconds':<14}" + "".join(f"{point:>12}" for point in points)
    return [head] + [
        f"  {name.upper():<14}" + "".join(f"{spread[point]:>12,.2f}" for point in points)
        for name, spread in rows
    ]


def _remarks(run: Mapping[str, Any]) -> list[str]:
    said = []
    if run["client_cpu"] > BUSY_CLIENT:
        said.append("the client was busy: more --processes may show more")
    if not run["tokens_reported"]:
        said.append("the server reports no token counts: every event counts as a token")
    if run["tokens_an_event"] > 1.05 and not run["counts_along"]:
        said.append("events bring several tokens: ITL is that of events (see --count-tokens)")
    if any(failure.startswith("HTTP 429") for failure in run["failures"]):
        said.append("the server refuses so many at a time: see --max-concurrency")
    if reason := run.get("gpus_unread"):
        said.append(f"no figures of GPUs: {reason}")
    return [f"  note: {each}" for each in said]
