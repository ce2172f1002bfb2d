"""What the launches of a step take in energy. Needs an NVIDIA GPU and nvidia-smi.

    python -m benchmarks.kernels.energy --out energy.json

A busy server is at the card's power limit (700 W of an H100 from 32 streams of 8B on), where what a
step costs is joules: its clocks fall until the work fits. Each launch is repeated for a second, on
distinct data, while power and clock are sampled; the second half counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.kernels.decode import Bench, Case
from benchmarks.kernels.served import served_gated, served_linear, served_parts
from benchmarks.machine import facts
from torch import Tensor

from penstock_kernels.gpu.attention.hopper_decode import HopperDecode

COPIES = 6  # of weights: none of it comes from L2
SHAPES = {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}
ROWS = (1, 8, 32, 64, 128, 256, 384, 768, 1152, 2048)
CASES = [Case(rows, 576, 0) for rows in (1, 8, 32, 64, 128, 256)]
CASES += [Case(16, 7000, 0), Case(64, 1056, 960), Case(32, 2064, 1984)]
QUERY = "--query-gpu=clocks.sm,power.draw.instant"

Launch = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Energy:
    """Of one launch, repeated."""

    what: str
    us: float
    watts: float
    megahertz: float

    @property
    def millijoules(self) -> float:
        return self.us * self.watts * 1e-3


class Sampler:
    """Clock and power, every 20 ms, with the time of each sample."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float, float]] = []
        command = ["nvidia-smi", QUERY, "--format=csv,noheader,nounits", "-lms", "20"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            clock, power = line.split(",")
            self._samples.append((time.monotonic(), float(clock), float(power)))

    def since(self, start: float) -> tuple[float, float]:
        """Mean clock and power."""
        found = [sample for sample in self._samples if sample[0] >= start]
        return statistics.mean(s[1] for s in found), statistics.mean(s[2] for s in found)

    def close(self) -> None:
        self._process.terminate()


def measure(sampler: Sampler, what: str, launch: Launch, count: int, seconds: float) -> Energy:
    """Launches of a graph of `count`, again and again."""
    for i in range(2):
        launch(i)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(count):
            launch(i)
    times: list[tuple[float, float]] = []
    begin, replays = time.monotonic(), 1
    while time.monotonic() < begin + seconds:
        event: Callable[..., Any] = torch.cuda.Event
        first, last = (event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(replays):
            graph.replay()
        last.record()
        last.synchronize()
        took = first.elapsed_time(last)
        times.append((time.monotonic(), took / replays / count * 1e3))
        replays = max(1, min(500, int(replays * 20 / max(took, 0.1))))  # 20 ms a turn
    half = begin + seconds / 2
    clock, power = sampler.since(half)
    return Energy(what, statistics.mean(us for at, us in times if at >= half), power, clock)


def reading() -> Launch:
    """Nothing but memory's work."""
    big = torch.randint(1 << 30, (1 << 28,), device="cuda", dtype=torch.int32)
    return lambda i: big.max()


def products(rows: int, weights: dict[str, list[Tensor]]) -> Launch:
    """The four products of a layer, without what steps add to them: the rotation, the residual."""
    x = torch.randn(rows, 4096, device="cuda", dtype=torch.bfloat16)
    wide = torch.randn(rows, 14336, device="cuda", dtype=torch.bfloat16)

    def launch(i: int) -> None:
        served_linear(x, weights["qkv"][i % COPIES])
        served_parts(x, weights["o"][i % COPIES])
        served_gated(x, weights["gate_up"][i % COPIES])
        served_parts(wide, weights["down"][i % COPIES])

    return launch


def attention(case: Case) -> Launch:
    """Decode attention of a layer and its merge."""
    bench = Bench(case, 32, 8, 128, 64)
    attend = HopperDecode(case.rows, 32, 8, 128, bench.query.device, dependent=True)
    plan = attend.plan(bench.positions, bench.slots, None, bench.sharing(attend.tile_rows))
    torch.cuda.synchronize()  # a plan must be older than the launch before

    def launch(i: int) -> None:
        cache = bench.caches[i % len(bench.caches)]
        attend(bench.query, cache, bench.table, bench.out, plan, 128**-0.5)

    return launch


def launches() -> Iterator[tuple[str, Launch, int]]:
    """What is measured, and how many make a graph."""
    yield "read 1 GiB", reading(), 4
    weights = {
        name: [torch.randn(shape, device="cuda").bfloat16() * 0.02 for _ in range(COPIES)]
        for name, shape in SHAPES.items()
    }
    for rows in ROWS:
        yield f"products of {rows} rows", products(rows, weights), COPIES
    for case in CASES:
        name = f"decode attention, {case.rows} x {case.context} ({case.shared} shared)"
        yield name, attention(case), 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each launch")
    arguments = parser.parse_args()
    sampler, found = Sampler(), []
    time.sleep(1)  # until the first sample
    for what, launch, count in launches():
        each = measure(sampler, what, launch, count, arguments.seconds)
        print(
            f"{what:<44}{each.us:>9.1f} us{each.watts:>6.0f} W{each.megahertz:>7.0f} MHz"
            f"{each.millijoules:>9.2f} mJ",
            flush=True,
        )
        found.append(asdict(each) | {"millijoules": each.millijoules})
    sampler.close()
    arguments.out.write_text(json.dumps(facts() | {"launches": found}, indent=1))


if __name__ == "__main__":
    main()
