"""What an autoscaler would do with a trace of arrivals, on simulated servers.

  python -m benchmarks.autoscaling --synthetic 900:2:48:900 --min 2
  python -m benchmarks.autoscaling --trace AzureLLMInferenceTrace_conv.csv --scale 2 --mode keda
  python -m benchmarks.autoscaling --synthetic 900:2:48:900 --min 2 --mode hpa keda none

One mode: the fleet from time to time, each decision with its reason, and figures. Several: a table.
Servers are the router's own scheduler; their steps take what was measured (--costs).
Defaults are the chart's values.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.autoscaling.autoscaler import Policy
from benchmarks.autoscaling.costs import MEASURED, measured
from benchmarks.autoscaling.fleet import Fleet, Setting
from benchmarks.autoscaling.replica import Size
from benchmarks.autoscaling.report import comparison, course, decisions, record, summary
from benchmarks.autoscaling.trace import Arrival, drawn, read

MOST_REPLICAS = 10_000
MOST_ARRIVALS = 10_000_000
MOST_TOKENS = 100_000_000
SIZE = Size()


def main() -> int:
    """Simulate, and print what came of it."""
    arguments = _parser().parse_args()
    try:
        arrivals = _arrivals(arguments)
        costs = measured(arguments.costs)
        settings = {mode: _setting(arguments, mode) for mode in arguments.mode}
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    figures, records = {}, {}
    for mode, setting in settings.items():
        begun = time.monotonic()
        outcome = Fleet(setting, costs).run(arrivals)
        figures[mode] = summary(outcome, arguments.slo)
        figures[mode]["simulated_in"] = round(time.monotonic() - begun, 1)
        records[mode] = record(setting, outcome, figures[mode])
        if len(settings) == 1:
            print(course(outcome, arguments.every), decisions(outcome), sep="\n\n", end="\n\n")
            print("\n".join(f"{name:16} {value}" for name, value in figures[mode].items()))
    if len(settings) > 1:
        print(comparison(figures))
    if arguments.out:
        data = {"costs": dataclasses.asdict(costs), "runs": records}
        arguments.out.write_text(json.dumps(data, indent=1))
    return 0


def _setting(arguments: argparse.Namespace, mode: str) -> Setting:
    if arguments.min > arguments.max:
        raise ValueError(f"--min {arguments.min} is more than --max {arguments.max}")
    return Setting(
        policy=Policy(
            mode=mode,
            least=arguments.min,
            most=arguments.max,
            queue_seconds=arguments.queue_seconds,
            kv_use=arguments.kv_use,
            batch_use=arguments.batch_use,
            stabilization=arguments.stabilization,
            down_period=arguments.down_period,
        ),
        first=arguments.first or arguments.min,
        start_seconds=arguments.start_seconds,
        affinity=arguments.affinity,
        load_factor=arguments.load_factor,
        size=Size(kv_tokens=arguments.kv_tokens, batch=arguments.max_batch_size),
    )


def _arrivals(arguments: argparse.Namespace) -> list[Arrival]:
    if arguments.trace is not None:
        found = read(arguments.trace, arguments.shared)
    else:
        seconds, low, high, period = _load(arguments.synthetic)
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


def _load(text: str) -> tuple[float, float, float, float]:
    """Raises ValueError."""
    rule = f"--synthetic must be SECONDS:LOW:HIGH:PERIOD, not {text!r}"
    try:
        seconds, low, high, period = map(float, text.split(":"))
    except ValueError:
        raise ValueError(rule) from None
    if not (0 < seconds < 1e8 and 0 <= low <= high and 0 < high < 1e6 and 0 < period < 1e8):
        raise ValueError(f"{rule}: seconds and period above 0, LOW at most HIGH, HIGH above 0")
    if seconds * high > MOST_ARRIVALS:
        raise ValueError(f"{rule}: that would be more than {MOST_ARRIVALS:,} arrivals")
    return seconds, low, high, period


def number(low: float, high: float = math.inf) -> Callable[[str], float]:
    """A kind of argument: above `low`, at most `high`."""

    def kind(text: str) -> float:
        value = float(text)
        if not low < value <= high:
            most = "" if high == math.inf else f" and at most {high:g}"
            raise argparse.ArgumentTypeError(f"must be above {low:g}{most}, not {text}")
        return value

    kind.__name__ = "number"
    return kind


def count(text: str) -> int:
    """A kind of argument: of replicas."""
    value = int(text)
    if not 0 <= value <= MOST_REPLICAS:
        raise argparse.ArgumentTypeError(f"must be 0 to {MOST_REPLICAS}, not {text}")
    return value


def some(text: str) -> int:
    """A kind of argument: of replicas, one at least."""
    if (value := count(text)) == 0:
        raise argparse.ArgumentTypeError("must be at least 1: nothing starts a server from none")
    return value


def tokens(text: str) -> int:
    """A kind of argument: as many as the longest sequence has, at least."""
    value = int(text)
    if not SIZE.longest <= value <= MOST_TOKENS:
        raise argparse.ArgumentTypeError(f"must be {SIZE.longest} to {MOST_TOKENS}, not {text}")
    return value


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each option, and the lines of the epilogue as they are."""


def _parser() -> argparse.ArgumentParser:
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.autoscaling",
        description=head,
        epilog=rest,
        formatter_class=Help,
    )
    group = parser.add_argument_group("arrivals")
    add = group.add_mutually_exclusive_group(required=True).add_argument
    add("--trace", type=Path, help="CSV or JSON lines with times, prompt and output tokens")
    add(
        "--synthetic",
        metavar="SECONDS:LOW:HIGH:PERIOD",
        help="drawn ones, from LOW requests a second to HIGH and back in each period",
    )
    add = group.add_argument
    add(
        "--shared",
        type=number(-1e-9, 1),
        default=0.0,
        help="share of a prompt of the trace that its `session` has in common",
    )
    add("--scale", type=number(0), default=1.0, help="how many times as fast they come")
    add("--burst", type=number(0), default=1.0, help="of the drawn rate in the middle tenth")
    add("--groups", type=some, default=64, help="prefixes of 512 tokens that drawn prompts share")
    add("--seed", type=int, default=1, help="another one draws others")
    add = parser.add_argument_group("autoscaler").add_argument
    modes = ("hpa", "keda", "none")
    add(
        "--mode",
        choices=modes,
        nargs="+",
        default=["hpa"],
        help="autoscaling.mode; none: as many as at the start",
    )
    add("--min", type=some, default=1, help="autoscaling.minReplicas")
    add("--max", type=some, default=8, help="autoscaling.maxReplicas")
    add("--queue-seconds", type=number(0), default=2.0, help="autoscaling.queueSeconds")
    add("--kv-use", type=number(0), default=0.8, help="autoscaling.kvUse; more than 1: never")
    add("--batch-use", type=number(0), default=0.5, help="autoscaling.batchUse; more than 1: never")
    add(
        "--stabilization",
        type=number(-1e-9),
        default=600.0,
        help="autoscaling.scaleDownStabilizationSeconds",
    )
    add(
        "--down-period",
        type=number(0),
        default=120.0,
        help="drain.terminationGracePeriodSeconds, in which one is taken away",
    )
    add = parser.add_argument_group("servers").add_argument
    add("--first", type=count, default=0, help="replicas at the start; 0: as --min")
    add(
        "--start-seconds",
        type=number(-1e-9),
        default=90.0,
        help="from the wish for a replica to one that is ready, a node among it",
    )
    add(
        "--costs",
        type=Path,
        default=MEASURED,
        help="steps that benchmarks.autoscaling.measure made a file of",
    )
    add(
        "--affinity",
        choices=("prefix", "none"),
        default="prefix",
        help="balancer.affinity; none: the least loaded",
    )
    add("--load-factor", type=number(1), default=1.25, help="balancer.loadFactor, as a factor")
    add("--kv-tokens", type=tokens, default=SIZE.kv_tokens, help="of a server's KV cache")
    add("--max-batch-size", type=some, default=SIZE.batch, help="seats of a server's batch")
    add = parser.add_argument_group("what is said").add_argument
    add("--slo", type=number(0), default=2.0, help="seconds after which a first token is late")
    add("--every", type=number(0), default=60.0, help="seconds between rows")
    add("--out", type=Path, help="file for all of it, in JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
