"""`penstock bench latency`: how long one batch takes in the offline engine, again and again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from penstock.bench.offline import asks, engine, offline_parser, write
from penstock.bench.options import whole

PERCENTILES = (10, 25, 50, 75, 90, 99)


def main(argv: Sequence[str], prog: str = "penstock bench latency") -> int:
    """The exit code."""
    parser = offline_parser(prog, __doc__ or "", prompt="32", output="128")
    parser.add_argument("--batch-size", type=whole(1, 100_000), default=8)
    parser.add_argument("--num-iters-warmup", type=whole(0, 10_000), default=3)
    parser.add_argument("--num-iters", type=whole(1, 10_000), default=30)
    arguments = parser.parse_args(argv)
    taken: list[float] = []
    # each batch is computed whole: nothing of the last one may be found in the cache
    with engine(arguments, enable_prefix_caching=False) as llm:
        rounds = range(-arguments.num_iters_warmup, arguments.num_iters)
        for number in tqdm(rounds, unit=" batches", disable=arguments.disable_tqdm):
            prompts, params = asks(arguments, arguments.batch_size, "latency")
            started = time.perf_counter()
            llm.generate(prompts, params, use_tqdm=False)
            if number >= 0:
                taken.append(time.perf_counter() - started)
    at = np.percentile(taken, PERCENTILES)
    figures: dict[str, Any] = {"avg_latency": round(float(np.mean(taken)), 5)}
    figures |= {f"p{p}": round(float(s), 5) for p, s in zip(PERCENTILES, at, strict=True)}
    figures["latencies"] = [round(each, 6) for each in taken]
    figures["percentiles"] = {str(p): figures[f"p{p}"] for p in PERCENTILES}
    write(arguments, figures)
    print(f"Avg latency: {figures['avg_latency']:.4f} seconds")
    return 0
