"""Where the microseconds of a step go. Needs a CUDA device.

    python -m benchmarks.kernels.profile_step --out profile.json

Runs the shard's own runner in this process, on random weights of a real shape, and prints for each
batch what every kernel of a decode step takes, and for a prefill step how long its launch takes the
host and how long the device.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.configs import SHAPES, write_model_folder
from torch.profiler import ProfilerActivity, profile

from penstock_proto import shard_pb2
from penstock_shard.config import ShardConfig
from penstock_shard.memory.measure import NEUTRAL
from penstock_shard.memory.warmup import warm_up
from penstock_shard.steps.runner import Runner
from penstock_shard.weights.loaded_model import load

PROMPT = 512  # tokens
PREFILL = 4096  # tokens a step
STEPS = 10
ROOM = 256  # tokens that a sequence may decode


class Session:
    """Commands in order, without a router."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._step = 1
        self._next_block = 1

    def run(self, **fields: Any) -> tuple[float, float]:
        """One command; seconds until it was launched, and until the device was done."""
        command = shard_pb2.StepCommand(step=self._step, repeat=1, **fields)
        self._step += 1
        torch.cuda.synchronize()
        begin = time.perf_counter()
        pending = list(self._runner.execute(command))
        launched = time.perf_counter()
        for each in pending:
            each.build()
        return launched - begin, time.perf_counter() - begin

    def admission(self, slot: int) -> shard_pb2.Admission:
        """A prompt of PROMPT tokens with ROOM for the steps that follow."""
        count = -(-(PROMPT + ROOM) // self._runner.limits.block_size)
        blocks = np.arange(self._next_block, self._next_block + count, dtype=np.int32)
        self._next_block += count
        tokens = np.random.default_rng(slot).integers(300, 100_000, PROMPT, dtype=np.int32)
        request = shard_pb2.Request(prompt=tokens.tobytes(), sampling=NEUTRAL)
        return shard_pb2.Admission(slot=slot, request=request, blocks=blocks.tobytes())

    def fill(self, rows: int) -> list[tuple[float, float]]:
        """Prefill so many slots; the times of the steps."""
        times = []
        for first in range(0, rows, PREFILL // PROMPT):
            slots = list(range(first, min(rows, first + PREFILL // PROMPT)))
            times.append(
                self.run(
                    admit=[self.admission(slot) for slot in slots],
                    chunk_slot=slots,
                    chunk_length=[PROMPT] * len(slots),
                )
            )
        return times


def profiled(name: str, step: Callable[[], tuple[float, float]]) -> dict[str, Any]:
    """Microseconds of each kernel of a step, which may be run again and again."""
    for _ in range(3):
        step()
    times = sorted(step() for _ in range(STEPS))
    launch, wall = (sorted(column)[STEPS // 2] for column in zip(*times, strict=True))
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(STEPS):
            step()
    kernels: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in recorded.events():
        kernels[event.name][0] += event.device_time / STEPS
        kernels[event.name][1] += 1 / STEPS
    ranked = sorted(kernels.items(), key=lambda item: -item[1][0])
    total = sum(us for us, _ in kernels.values())
    print(
        f"{name}: {wall * 1e6:.0f} us a step, host {launch * 1e6:.0f}, kernels {total:.0f}",
        flush=True,
    )
    for kernel, (us, count) in ranked[:14]:
        print(f"  {us:8.1f} us {count:6.1f} x  {kernel[:110]}", flush=True)
    return {
        "step": name,
        "wall_us": wall * 1e6,
        "host_us": launch * 1e6,
        "kernels": dict(ranked[:30]),
    }


def decode_table(session: Session, rows: int) -> dict[str, Any]:
    """A decode step."""
    session.run(decode_changed=True, decode=list(range(rows)))
    return profiled(f"decode {rows} rows", session.run)


def mixed_table(session: Session, first: int, rows: int, tokens: int) -> dict[str, Any]:
    """A step of decode rows and of prompt tokens in chunks. first: a slot that is free."""
    count = -(-tokens // PROMPT)
    slots = list(range(first, first + count))
    admissions = [session.admission(slot) for slot in slots]
    lengths = [min(PROMPT, tokens - PROMPT * i) for i in range(count)]
    session.run(decode_changed=True, decode=list(range(rows)))
    session.run(admit=admissions)

    def step() -> tuple[float, float]:
        # The same prompt again and again: filled anew in the step that computes it.
        return session.run(release=slots, admit=admissions, chunk_slot=slots, chunk_length=lengths)

    table = profiled(f"mixed {rows} + {tokens}", step)
    session.run(release=slots)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 64, 128])
    parser.add_argument(
        "--mixed",
        type=lambda text: tuple(int(number) for number in text.split("+")),
        nargs="*",
        default=[(32, 352), (64, 320), (128, 1024)],
        help="decode rows + prompt tokens",
    )
    parser.add_argument("--quantize", help="as the launcher's")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_model_folder(arguments.shape, Path(folder))
        loaded = load(
            ShardConfig(
                model_path=str(model),
                dtype=None,
                device="cuda",
                load_format="dummy",
                quantize=arguments.quantize,
                kv_cache_dtype="auto",
                kv_block_size=None,
                cuda_memory_fraction=1.0,
                cuda_graphs=None,
                disable_dependent_launch=False,
                socket_folder=folder,
            )
        )
        request = shard_pb2.WarmupRequest(
            max_prefill_tokens=PREFILL, max_slots=256, max_sequence_length=8192, max_top_n=5
        )
        runner, response = warm_up(loaded, request)
    print(
        f"warm-up: prefill {response.prefill_seconds:.3f} s, decode {response.decode_seconds:.4f}"
    )
    session = Session(runner)
    most = max(arguments.rows)
    for launch, done in session.fill(most)[-3:]:
        print(f"prefill of {PREFILL} tokens: host {launch * 1e3:.1f} ms, done {done * 1e3:.1f} ms")
    tables = [decode_table(session, rows) for rows in sorted(arguments.rows)]
    for rows, tokens in arguments.mixed:
        tables.append(mixed_table(session, most, rows, tokens))
    arguments.out.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "steps": tables}))


if __name__ == "__main__":
    main()
