"""What an autoscaler would do with a trace of arrivals, on simulated servers.

python -m benchmarks.autoscaling --synthetic 1800:2:12:1800 --mode hpa --max 8
python -m benchmarks.autoscaling --trace AzureLLMInferenceTrace_conv.csv --mode keda --scale 2
python -m benchmarks.autoscaling --synthetic 900:8:8:900 --mode none --first 3

Servers are the router's own scheduler; its steps take what was measured on an H100 (8B, bfloat16).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.autoscaling.autoscaler import Policy
from benchmarks.autoscaling.costs import MEASURED, measured
from benchmarks.autoscaling.fleet import Fleet, Outcome, Setting
from benchmarks.autoscaling.trace import Arrival, drawn, read


def main() -> int:
    """Simulate, and print a table and a line of figures."""
    arguments = _parser().parse_args()
    try:
        arrivals = _arrivals(arguments)
        costs = measured(arguments.costs)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    setting = Setting(
        policy=Policy(
            mode=arguments.mode,
            least=arguments.min,
            most=arguments.max,
            queue_seconds=arguments.queue_seconds,
            kv_use=arguments.kv_use,
            batch_use=arguments.batch_use,
            stabilization=arguments.stabilization,
        ),
        first=arguments.first or arguments.min,
        start_seconds=arguments.start_seconds,
        affinity=arguments.affinity,
        load_factor=arguments.load_factor,
    )
    begun = time.monotonic()
    outcome = Fleet(setting, costs).run(arrivals)
    figures = summary(outcome, arguments.slo)
    figures["simulated_in"] = round(time.monotonic() - begun, 1)
    print(table(outcome, arguments.every))
    print(", ".join(f"{name} {value}" for name, value in figures.items()))
    if arguments.out:
        data = {"setting": dataclasses.asdict(setting), "costs": dataclasses.asdict(costs)}
        looks = [dataclasses.asdict(look) for look in outcome.looks]
        arguments.out.write_text(json.dumps({**data, "figures": figures, "looks": looks}, indent=1))
    return 0


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


def table(outcome: Outcome, every: float) -> str:
    """The fleet from time to time."""
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


def _arrivals(arguments: argparse.Namespace) -> list[Arrival]:
    if arguments.trace is not None:
        found = read(arguments.trace, arguments.shared)
    else:
        seconds, low, high, period = map(float, arguments.synthetic.split(":"))
        found = drawn(
            seconds,
            low,
            high,
            period,
            burst=arguments.burst,
            seed=arguments.seed,
            groups=arguments.groups,
        )
    if not found:
        raise ValueError("there are no arrivals")
    return [dataclasses.replace(one, time=one.time / arguments.scale) for one in found]


def _parser() -> argparse.ArgumentParser:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[2:]),
        formatter_class=argparse.RawTextHelpFormatter,
    )
    arrivals = parser.add_mutually_exclusive_group(required=True)
    arrivals.add_argument("--trace", type=Path, help="CSV or JSON lines with times and tokens")
    arrivals.add_argument("--synthetic", help="SECONDS:LOW:HIGH:PERIOD, rates in requests a second")
    parser.add_argument("--burst", type=float, default=1.0, help="of the rate in the middle tenth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="how many times as fast it comes")
    parser.add_argument("--shared", type=float, default=0.0, help="share of a prompt: its group's")
    parser.add_argument("--mode", choices=("hpa", "keda", "none"), default="hpa")
    parser.add_argument("--min", type=int, default=1)
    parser.add_argument("--max", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="replicas at the start; 0: --min")
    parser.add_argument("--queue-seconds", type=float, default=2.0)
    parser.add_argument("--kv-use", type=float, default=0.8)
    parser.add_argument("--batch-use", type=float, default=0.5)
    parser.add_argument("--stabilization", type=float, default=600.0)
    parser.add_argument("--start-seconds", type=float, default=90.0)
    parser.add_argument("--affinity", choices=("prefix", "none"), default="prefix")
    parser.add_argument("--load-factor", type=float, default=1.25)
    parser.add_argument("--groups", type=int, default=64, help="prefixes of a drawn load")
    parser.add_argument("--slo", type=float, default=2.0, help="seconds until the first token")
    parser.add_argument("--costs", type=Path, default=MEASURED, help="steps that were measured")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between rows")
    parser.add_argument("--out", type=Path, help="file for all of it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
