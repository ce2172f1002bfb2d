"""Sizes of steps with prompts, tried on times that shards have measured: the scheduler as it is, a
device that takes as long as they say.

    python -m benchmarks.step_sizes --streams 64

For each model of `results/h200_step_costs.json`: 64 streams of 512 prompt tokens and 128 more, with
the sizes that `scheduler.costs` chooses, relative to those before. Attention's time by context is
that of Llama-3.1-8B; nothing waits for a host. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from penstock_router.request import GenerationRequest
from penstock_router.scheduler import Scheduler, SchedulerConfig, StepPlan
from penstock_router.scheduler.costs import USUAL, step_rows
from penstock_shard.steps.mixed_graphs import buckets_for

MEASURED = Path(__file__).parent / "results" / "h200_step_costs.json"
PROMPT, OUTPUT = 512, 128  # tokens
SLOTS, PREFILL = 256, 4096
A_TOKEN_OF_CONTEXT = 0.033e-6  # seconds
A_ROW = 0.85  # of the time of the smallest step that was measured


class Served(NamedTuple):
    """Tokens a second; medians of the time to the first and of a token; the 99th centile between
    tokens: seconds."""

    tokens: float
    first: float
    each: float
    between: float


def device(costs: dict[int, float]) -> Callable[[StepPlan], float]:
    """Seconds of the steps of a plan. costs: of steps with prompts by their rows."""
    sizes, buckets = sorted(costs), buckets_for(PREFILL + SLOTS)
    rows = [1, *sizes]
    seconds = np.maximum.accumulate([A_ROW * costs[sizes[0]], *(costs[size] for size in sizes)])

    def takes(plan: StepPlan) -> float:
        size = buckets[bisect_left(buckets, plan.rows)] if plan.chunked else plan.rows
        context = sum(running.planned for running in plan.decode)
        return float(np.interp(size, rows, seconds)) + context * A_TOKEN_OF_CONTEXT

    return takes


def serve(takes: Callable[[StepPlan], float], sizes: tuple[int, ...], streams: int) -> Served:
    """A closed loop of so many streams, each of which asks three times."""
    scheduler, random = Scheduler(_config(sizes)), Random(1)
    now = idle_from = 0.0
    left, under_way = 3 * streams, deque[tuple[float, float, int, int]]()
    begun: dict[int, float] = {}
    times: dict[int, list[float]] = {}

    def ask() -> None:
        prompt = tuple(random.randrange(300, 9000) for _ in range(PROMPT))
        begun[scheduler.submit(GenerationRequest(prompt, OUTPUT, ignore_eos=True), now).id] = now

    for _ in range(streams):
        ask()
        left -= 1
    while not scheduler.idle:
        while len(under_way) < 2 and (plan := scheduler.plan(now)) is not None:
            idle_from, seconds = max(idle_from, now), takes(plan)
            rows = len(plan.decode) + sum(not running.prefilling for running, _ in plan.chunks)
            for step in range(plan.step, plan.last_step + 1):
                idle_from += seconds
                under_way.append((idle_from, seconds, step, rows))
        now, seconds, step, rows = under_way.popleft()
        for outcome in scheduler.commit(step, [1000] * rows, seconds):
            times.setdefault(outcome.sequence.id, []).append(now)
            if outcome.finish is not None and left:
                ask()
                left -= 1
    first = [found[0] - begun[number] for number, found in times.items()]
    each = [(found[-1] - found[0]) / (OUTPUT - 1) for found in times.values()]
    gaps = np.concatenate([np.diff(found) for found in times.values()])
    count = sum(map(len, times.values()))
    return Served(
        count / now,
        float(np.median(first)),
        float(np.median(each)),
        float(np.percentile(gaps, 99)),
    )


def _config(sizes: tuple[int, ...]) -> SchedulerConfig:
    return SchedulerConfig(
        num_blocks=30_000,
        block_size=64,
        max_batch_size=SLOTS,
        max_batch_prefill_tokens=PREFILL,
        max_waiting_tokens=20,
        waiting_served_ratio=0.3,
        cheap_rows=sizes[0],
        step_rows=sizes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_sizes", description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    streams = parser.parse_args().streams
    print(f"{'':<34}{'tokens/s':>10}{'TTFT':>7}{'TPOT':>7}{'ITL p99':>9}  sizes")
    for model, by_rows in json.loads(MEASURED.read_text())["ms"].items():
        costs = {int(rows): ms / 1e3 for rows, ms in by_rows.items()}
        takes, sizes = device(costs), step_rows(costs)
        chosen, usual = serve(takes, sizes, streams), serve(takes, USUAL, streams)
        tokens, first, each, between = (
            one / other for one, other in zip(chosen, usual, strict=True)
        )
        print(f"{model:<34}{tokens:>10.3f}{first:>7.2f}{each:>7.2f}{between:>9.2f}  {sizes}")


if __name__ == "__main__":
    main()
