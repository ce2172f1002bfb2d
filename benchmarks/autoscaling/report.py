"""What a simulation says: figures of a run, its course, and what the autoscaler did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.autoscaling.fleet import Outcome, Setting

# how a figure is called in the table of several runs
COLUMNS = {
    "ttft_p50": "first token p50 (s)",
    "ttft_p90": "p90",
    "ttft_p99": "p99",
    "late_share": "late",
    "most_replicas": "most replicas",
    "replica_hours": "replica hours",
    "prefix_hits": "prefix hits",
}


def summary(outcome: Outcome, slo: float) -> dict[str, Any]:
    """Figures of a run. slo: seconds in which a first token should come."""
    firsts = sorted(
        served.first_token - served.arrival.time
        for served in outcome.served
        if served.first_token is not None
    )

    def quantile(share: float) -> float:
        return round(firsts[int(share * (len(firsts) - 1))], 3)

    late = sum(first > slo for first in firsts)
    return {
        "requests": len(firsts),
        "ttft_p50": quantile(0.5),
        "ttft_p90": quantile(0.9),
        "ttft_p99": quantile(0.99),
        "late_share": round(late / len(firsts), 4),
        "replica_hours": round(outcome.replica_seconds / 3600, 3),
        "most_replicas": max(look.replicas for look in outcome.looks),
        "busy_share": round(outcome.busy_seconds / outcome.replica_seconds, 3),
        "prefix_hits": round(outcome.cached / max(outcome.prompted, 1), 3),
        "tokens_a_second": round(
            sum(served.arrival.output for served in outcome.served) / outcome.seconds
        ),
    }


def course(outcome: Outcome, every: float) -> str:
    """The fleet from time to time. Replicas: those that start or leave among them."""
    lines = ["    time  replicas  ready  queue p90  KV use  batch use  waiting"]
    due = 0.0
    for look in outcome.looks:
        if look.time >= due:
            due = look.time + every
            lines.append(
                f"{look.time:8.0f}  {look.replicas:8d}  {look.ready:5d}  {look.queue_seconds:9.2f}"
                f"  {look.kv_use:6.2f}  {look.batch_use:9.2f}  {look.waiting:7d}"
            )
    return "\n".join(lines)


def decisions(outcome: Outcome) -> str:
    """Each change of the number of replicas, and why."""
    if not outcome.changes:
        return "the autoscaler changed nothing"
    lines = ["    time  replicas  because of"]
    for change in outcome.changes:
        why = "no measure asks for more"
        if change.after > change.before:
            why = f"{change.by} {change.value:.2f}, target {change.target:g}"
        lines.append(f"{change.time:8.0f}  {change.before:3d} ->{change.after:3d}  {why}")
    return "\n".join(lines)


def comparison(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A table in Markdown, a run a row."""
    rows = [["", *COLUMNS.values()], ["---"] * (1 + len(COLUMNS))]
    rows += [[name, *(str(run[key]) for key in COLUMNS)] for name, run in figures.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def record(setting: Setting, outcome: Outcome, figures: Mapping[str, Any]) -> dict[str, Any]:
    """A run for a file."""
    return {
        "setting": dataclasses.asdict(setting),
        "figures": figures,
        "changes": [dataclasses.asdict(change) for change in outcome.changes],
        "looks": [dataclasses.asdict(look) for look in outcome.looks],
    }
