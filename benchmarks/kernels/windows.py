"""What attention in a sliding window takes, Hopper's kernels beside the portable ones.

    python -m benchmarks.kernels.windows --out windows.json

Needs a Hopper GPU. Times are microseconds of a layer of Mistral 7B's heads (32, 8 of keys, 128
wide); every result is held to the portable kernel's first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.kernels.decode import Bench, Case
from benchmarks.kernels.prefill import Chunks, Inputs, inputs
from benchmarks.kernels.timing import microseconds

from penstock_kernels.gpu.attention.decode_attention import DecodeAttention
from penstock_kernels.gpu.attention.hopper_decode import HopperDecode
from penstock_kernels.gpu.attention.hopper_prefill import hopper_prefill
from penstock_kernels.gpu.attention.prefill_attention import triton_prefill

HEADS, KV_HEADS, WIDTH, PAGE = 32, 8, 128, 64
WINDOWS = (None, 4096, 1024)
DECODES = [Case(1, 8000, 0), Case(8, 8000, 0), Case(64, 8000, 0)]
PREFILLS = [Chunks(1, 4096, 4000), Chunks(8, 512, 4000)]


def decode(case: Case, window: int | None) -> dict[str, float]:
    """Microseconds of a layer; the plan is made before."""
    bench = Bench(case, HEADS, KV_HEADS, WIDTH, PAGE, 4)
    sizes = (case.rows, HEADS, KV_HEADS, WIDTH, bench.query.device, True)
    portable, hopper = DecodeAttention(*sizes), HopperDecode(*sizes)
    items = portable.plan(bench.positions, None, None, window)
    plan = hopper.plan(bench.positions, bench.slots, None, None, window)
    torch.cuda.synchronize()
    scale, caches = WIDTH**-0.5, bench.caches

    def by_portable(i: int) -> None:
        portable(
            bench.query, caches[i % 4], bench.table, bench.slots, bench.positions, bench.out,
            items, scale, window,
        )  # fmt: skip

    def by_hopper(i: int) -> None:
        hopper(bench.query, caches[i % 4], bench.table, bench.out, plan, scale)

    by_portable(0)
    expected = bench.out.clone()
    by_hopper(0)
    torch.testing.assert_close(bench.out, expected, atol=2e-3, rtol=2e-2)
    return {"portable": microseconds(by_portable), "hopper": microseconds(by_hopper)}


def _run(way: Callable[..., None], given: Inputs, window: int | None, _: int) -> None:
    way(*given, window)


def prefill(case: Chunks, window: int | None) -> dict[str, float]:
    """Microseconds of a layer."""
    given = inputs((HEADS, KV_HEADS, WIDTH), case)
    ways: dict[str, Callable[..., None]] = {"portable": triton_prefill, "hopper": hopper_prefill}
    times, results = {}, []
    for name, way in ways.items():
        way(*given, window)
        results.append(given.out.clone())
        times[name] = microseconds(partial(_run, way, given, window))
    torch.testing.assert_close(*results, atol=4e-3, rtol=2e-2)
    return times


def main() -> None:
    """Prints a line a case, and writes all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels.windows")
    parser.add_argument("--out", type=Path, required=True)
    found: list[dict[str, Any]] = []
    out = parser.parse_args().out
    for run, cases in ((decode, DECODES), (prefill, PREFILLS)):
        for case in cases:
            for window in WINDOWS:
                times = run(case, window)  # type: ignore[arg-type]
                found.append({"case": str(case), "window": window, "microseconds": times})
                told = "  ".join(f"{name} {us:8.1f}" for name, us in times.items())
                print(f"{case!s:<52} window {window!s:<6} {told}", flush=True)
    out.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "lines": found}, indent=1))


if __name__ == "__main__":
    main()
