"""How fast every kernel moves what it must, against a copy on the same card. Needs a CUDA device.

    python -m benchmarks.kernels.bandwidth --shape llama-3.1-8b --out bandwidth.json

One line a launch: microseconds, bytes that must be moved (inputs read once, outputs written once),
their rate and its share of a copy's; where products bound it, operations too. Launches stand in a
CUDA graph one behind the other, dependently as in a server, on data that rotates so that none comes
from L2. Of what stands in L2 in a step as well, and of kernels that move little, only the time says
something. Sums over ranks take two cards: benchmarks/kernels/rank_sum.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.configs import SHAPES, Shape
from benchmarks.kernels.lines import (
    attention,
    codes,
    experts,
    one_row,
    products,
    quantised,
    rows,
    rows_in_fp8,
    steps,
    whole_numbers,
)
from benchmarks.kernels.lines.line import Line
from benchmarks.kernels.timing import microseconds
from benchmarks.machine import facts

from penstock_kernels.gpu.launch.ahead import compile_only
from penstock_kernels.gpu.launch.hopper import is_hopper

MODELS = ("llama-3.1-8b", "llama-3.2-1b")
GRAPH_US = 2000.0  # a graph should take, so that starting it does not count
GIB = 1 << 30


def lines(shape: Shape) -> Iterator[Line]:
    """What is measured of a model."""
    for part in (
        rows,
        steps,
        products,
        quantised,
        codes,
        one_row,
        attention,
        whole_numbers,
        rows_in_fp8,
        experts,
    ):
        yield from part.lines(shape)


def runnable(line: Line, device: torch.device) -> bool:
    """Whether the card has what its kernels need."""
    return is_hopper(device) or not any(kernel.startswith("hopper") for kernel in line.kernels)


def copy_and_read(device: torch.device) -> tuple[float, float]:
    """TB/s of a copy of 1 GiB, reads and writes counted, and of reading it."""
    source = torch.randint(1 << 30, (2, GIB // 4), device=device, dtype=torch.int32)
    target = torch.empty_like(source)
    copied = microseconds(lambda i: target[i % 2].copy_(source[i % 2]), 4)
    read = microseconds(lambda i: source[i % 2].max(), 4)
    return 2 * GIB / copied / 1e6, GIB / read / 1e6


def measured(line: Line, copy: float, device: torch.device) -> dict[str, Any]:
    """A line's figures, printed."""
    launch = line.prepare(device, line.copies)
    torch.cuda.synchronize()  # a plan must be older than the launch before
    us = microseconds(launch, line.copies, 3)
    turns = max(1, min(200, int(GRAPH_US / us) // line.copies))
    us = microseconds(launch, line.copies * turns)
    found: dict[str, Any] = {
        "name": line.name, "what": line.what, "kernels": line.kernels, "us": round(us, 2),
        "bytes": line.moved, "copies": line.copies,
    }  # fmt: skip
    text = f"{line.name:34}{line.what:34}{us:10.1f} us{line.moved / 1e6:10.2f} MB"
    if not line.small:
        rate = line.moved / us / 1e6
        found |= {"tb_per_s": round(rate, 3), "share_of_copy": round(rate / copy, 3)}
        text += f"{rate:7.2f} TB/s {rate / copy:4.0%}"
    if line.flops:
        found["tflops"] = round(line.flops / us / 1e6, 1)
        text += f"{found['tflops']:7.0f} TFLOP/s"
    print(text, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels.bandwidth", description=__doc__
    )
    parser.add_argument("--shape", choices=MODELS, default=MODELS[0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = torch.device("cuda", torch.cuda.current_device())
    chosen = [line for line in lines(SHAPES[arguments.shape]) if runnable(line, device)]
    copy, read = copy_and_read(device)
    print(f"copy {copy:.2f} TB/s, read {read:.2f} TB/s", flush=True)
    with compile_only():
        for line in chosen:
            line.prepare(device, line.copies)(0)
    found = [measured(line, copy, device) for line in chosen]
    result = {"shape": arguments.shape, "copy_tb_per_s": round(copy, 3)}
    result |= {"read_tb_per_s": round(read, 3), "lines": found}
    if arguments.out:
        arguments.out.write_text(json.dumps(facts() | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
