"""`penstock bench throughput`: how many tokens a second the offline engine makes of a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from penstock.bench.gpu import GpuWatch
from penstock.bench.lengths import Lengths
from penstock.bench.offline import asks, engine, offline_parser, total_tokens, write
from penstock.bench.options import whole

WARM_UP = Lengths("fixed", (8.0,))


def main(argv: Sequence[str], prog: str = "penstock bench throughput") -> int:
    """The exit code."""
    parser = offline_parser(prog, __doc__ or "", prompt="1024", output="128")
    parser.add_argument("--num-prompts", type=whole(1, 1_000_000), default=1000)
    arguments = parser.parse_args(argv)
    with engine(arguments) as llm:
        prompts, params = asks(arguments, 4, "warm-up", WARM_UP)
        llm.generate(prompts, params, use_tqdm=False)
        prompts, params = asks(arguments, arguments.num_prompts, "throughput")
        with GpuWatch() as gpus:
            started = time.perf_counter()
            outputs = llm.generate(prompts, params, use_tqdm=not arguments.disable_tqdm)
            seconds = time.perf_counter() - started
    read, made = total_tokens(outputs)
    figures: dict[str, Any] = {
        "elapsed_time": round(seconds, 3),
        "num_requests": len(outputs),
        "total_num_tokens": read + made,
        "output_tokens": made,
        "requests_per_second": round(len(outputs) / seconds, 2),
        "tokens_per_second": round((read + made) / seconds, 1),
        "output_tokens_per_second": round(made / seconds, 1),
        "gpus": gpus.figures,
    }
    write(arguments, figures)
    print(
        f"Throughput: {figures['requests_per_second']:.2f} requests/s, "
        f"{figures['tokens_per_second']:.2f} total tokens/s, "
        f"{figures['output_tokens_per_second']:.2f} output tokens/s"
    )
    return 0
