"""What each captured graph takes of a GPU's memory, by the driver, and of the start's time.

python -m benchmarks.kernels.graph_memory --shape llama-3.1-8b --out graph_memory.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarks.configs import write_model_folder

from penstock_proto import shard_pb2
from penstock_shard.config import ShardConfig
from penstock_shard.memory import warmup
from penstock_shard.phases import SPENT
from penstock_shard.steps.graphs import CountedCapture, Replayable
from penstock_shard.weights.loaded_model import load

MIB = 1 << 20
SIZES = {
    "max_prefill_tokens": 4096,
    "max_slots": 256,
    "max_sequence_length": 8192,
    "max_top_n": 20,
    "max_chunks": 64,
}


Row = tuple[float, int, int]  # seconds, bytes that the driver gave, bytes that torch took
SEEN: list[tuple[str, Row]] = []  # of each graph that was captured


class Watched(CountedCapture):
    """Notes what each graph takes."""

    def __call__(self, step: Callable[[], None]) -> Replayable:
        free, held, start = taken(), torch.cuda.memory_reserved(), time.perf_counter()
        graph = super().__call__(step)
        torch.cuda.synchronize()
        assert isinstance(step, partial), "a method and its bucket"
        kind = step.func.__qualname__
        seconds = time.perf_counter() - start
        SEEN.append((kind, (seconds, taken() - free, torch.cuda.memory_reserved() - held)))
        return graph


def taken() -> int:
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def run(shape: str, dtype: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model = write_model_folder(shape, Path(folder) / "model")
        config: dict[str, Any] = {
            "model_path": str(model), "dtype": dtype, "device": "cuda", "load_format": "dummy",
            "quantize": None, "kv_cache_dtype": "auto", "kv_block_size": None,
            "cuda_memory_fraction": 1.0, "cuda_graphs": None, "disable_dependent_launch": False,
            "socket_folder": folder,
        }  # fmt: skip
        loaded = load(ShardConfig(**config))
    start = time.perf_counter()
    with mock.patch.object(warmup, "CountedCapture", Watched):
        _, answer = warmup.warm_up(loaded, shard_pb2.WarmupRequest(**SIZES))
    torch.cuda.synchronize()
    kinds: dict[str, list[Row]] = {}
    for kind, row in SEEN:
        kinds.setdefault(kind, []).append(row)
    return {
        "shape": shape,
        "warm_up": time.perf_counter() - start,
        "phases": dict(SPENT),
        "ledger": dict(answer.memory),
        "used": taken(),
        "left_after": torch.cuda.mem_get_info()[0],
        "graphs": kinds,
    }


def table(found: dict[str, Any]) -> None:
    print(found["shape"], f"warm-up {found['warm_up']:.1f} s", end="; ")
    print(", ".join(f"{name} {seconds:.1f}" for name, seconds in found["phases"].items()))
    print("MiB:", ", ".join(f"{name} {size / MIB:.0f}" for name, size in found["ledger"].items()))
    print(f"left {found['left_after'] / MIB:.0f} MiB")
    for kind, rows in found["graphs"].items():
        seconds = sum(row[0] for row in rows)
        first, rest = rows[0], rows[1:]
        print(
            f"{kind:22} {len(rows):4} graphs {seconds:6.2f} s; MiB driver/torch: first "
            f"{first[1] / MIB:.0f}/{first[2] / MIB:.0f}, rest {sum(r[1] for r in rest) / MIB:.0f}/"
            f"{sum(r[2] for r in rest) / MIB:.0f}, by graph "
            + " ".join(f"{row[1] / MIB:.0f}" for row in rest[:24])
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="llama-3.1-8b")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = run(arguments.shape, arguments.dtype)
    table(found)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
