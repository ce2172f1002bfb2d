"""Pictures of results: curves over the runs, and how the requests of a run spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# title, key of the figures, percentile within it
PANELS = (
    ("output tokens / s", "output_tokens_per_second", None),
    ("time to first token, p50 (ms)", "ttft_ms", "p50"),
    ("time per output token, p50 (ms)", "tpot_ms", "p50"),
    ("inter-token latency, p99 (ms)", "itl_ms", "p99"),
)
BUCKETS = 60  # of the time of a run


class NoMatplotlib(Exception):
    """The library is an extra; the message says how to have it."""


def pyplot() -> Any:
    """matplotlib, drawing to files. Raises NoMatplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise NoMatplotlib(
            "plots need matplotlib: pip install 'penstock[plot]', or pip install matplotlib"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot(out: Path, runs: Sequence[Mapping[str, Any]], requests: Sequence[list[Any]]) -> None:
    """Draws several runs as curves over what differs between them, one as its distributions.

    requests: the measurements of each run. Raises NoMatplotlib.
    """
    plt = pyplot()
    figure, axes = plt.subplots(2, 2, figsize=(11, 8))
    if len(runs) > 1:
        _curves(axes.flat, runs)
    else:
        _distributions(axes.flat, runs[0], requests[0])
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0, top=1.05 * axis.get_ylim()[1])
    figure.tight_layout()
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _curves(axes: Sequence[Any], runs: Sequence[Mapping[str, Any]]) -> None:
    by_rate = len({run["request_rate"] for run in runs}) > 1
    key, label = ("request_rate", "requests / s") if by_rate else ("max_concurrency", "streams")
    for axis, (title, name, point) in zip(axes, PANELS, strict=True):
        pairs = [
            (run[key], run[name] if point is None else (run[name] or {}).get(point))
            for run in runs
            if run[key] is not None
        ]
        shown = sorted(pair for pair in pairs if pair[1] is not None)
        axis.plot([x for x, _ in shown], [y for _, y in shown], "o-")
        axis.set(title=title, xlabel=label, xscale="log")
        places = [x for x, _ in shown]
        axis.set_xticks(places, [f"{x:g}" for x in places])
        axis.minorticks_off()


def _distributions(axes: Sequence[Any], run: Mapping[str, Any], requests: list[Any]) -> None:
    good = [r for r in requests if r["failure"] is None]
    waits = [(r["first"] - r["started"]) * 1e3 for r in good]
    gaps = [gap / 1e3 for r in good for gap in r["gaps_us"]]
    for axis, title, values in (
        (axes[0], "time to first token (ms)", waits),
        (axes[1], "time between tokens (ms)", gaps),
    ):
        ordered = np.sort(values)
        axis.plot(ordered, np.arange(1, len(ordered) + 1) / max(len(ordered), 1))
        axis.set(title=title, ylabel="share of all")
    if not good:
        return
    begin, end = min(r["started"] for r in good), max(r["last"] for r in good)
    edges = np.linspace(0, max(end - begin, 1e-6), BUCKETS + 1)
    arrived = np.concatenate(
        [r["first"] - begin + np.cumsum([0.0, *r["gaps_us"]]) / 1e6 for r in good]
    )
    counts, _ = np.histogram(arrived, edges)
    axes[2].plot(edges[:-1], counts / np.diff(edges))
    axes[2].set(title=f"tokens / s ({run['label']})", xlabel="seconds")
    starts = np.sort([r["started"] - begin for r in good])
    ends = np.sort([r["last"] - begin for r in good])
    flying = np.searchsorted(starts, edges, "right") - np.searchsorted(ends, edges, "right")
    axes[3].plot(edges, flying)
    axes[3].set(title="requests in flight", xlabel="seconds")
