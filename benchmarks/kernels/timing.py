"""Time of a launch inside a CUDA graph, as a step runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

COPIES = 16  # of what a launch reads, so that none of it comes from L2


def microseconds(launch: Callable[[int], object], count: int = COPIES, replays: int = 12) -> float:
    """Median time of one launch inside a graph of `count`; launches are told their numbers."""
    for i in range(2):
        launch(i)
    graph = torch.cuda.CUDAGraph()
    # Other threads may call CUDA meanwhile: NCCL's, where there are ranks.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for i in range(count):
            launch(i)
    times: list[float] = []
    for _ in range(replays):
        event: Callable[..., Any] = torch.cuda.Event
        begin, end = (event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / count)
    return sorted(times)[len(times) // 2]
