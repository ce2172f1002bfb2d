"""`penstock bench startup`: from the start of a process to a server that is ready and a token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from penstock.bench.lengths import Lengths
from penstock.bench.offline import asks, engine, offline_parser, write
from penstock.bench.options import whole
from penstock.bench.summary import spread

ONE = Lengths("fixed", (1.0,))


def main(argv: Sequence[str], prog: str = "penstock bench startup") -> int:
    """The exit code."""
    parser = offline_parser(prog, __doc__ or "", prompt="32", output="1")
    parser.add_argument("--num-iters", type=whole(1, 100), default=3)
    arguments = parser.parse_args(argv)
    ready: list[float] = []
    first: list[float] = []
    for number in range(arguments.num_iters):
        started = time.perf_counter()
        with engine(arguments) as llm:
            ready.append(time.perf_counter() - started)
            prompts, params = asks(arguments, 1, "startup", ONE)
            llm.generate(prompts, params, use_tqdm=False)
            first.append(time.perf_counter() - started)
        print(f"start {number + 1}: ready {ready[-1]:.2f} s, first token {first[-1]:.2f} s")
    figures: dict[str, Any] = {
        "first_start_seconds": round(first[0], 3),  # caches of kernels may be cold in it
        "least_seconds": round(min(first), 3),
        "ready_seconds": spread(ready, 3),
        "first_token_seconds": spread(first, 3),
        "starts": [round(each, 3) for each in first],
    }
    write(arguments, figures)
    return 0
