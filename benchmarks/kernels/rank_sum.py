"""What a sum over two ranks costs, alone and between the products of a layer. Needs two GPUs.

    python -m benchmarks.kernels.rank_sum --out rank_sum.json

Alone: sum, residual and norm, 64 times in a CUDA graph. Layer: the products of Llama-3.1-8B cut in
two and both sums, over distinct weights in a graph, without attention; "products" leaves the sums
out and keeps the norms, so what a sum costs is the difference. Microseconds, of rank 0.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from benchmarks.kernels.served import served_gated, served_linear
from benchmarks.kernels.timing import microseconds
from benchmarks.machine import facts
from torch import Tensor

from penstock_kernels.gpu.step.norm import add_norm
from penstock_kernels.ops import Norm
from penstock_shard.ranks.parallel import join_group
from penstock_shard.ranks.symmetric import LARGEST, MappedRows, SymmetricSums

HIDDEN, EPS, CALLS, LAYERS, REPLAYS = 4096, 1e-5, 64, 12, 20
SHAPES = {"o": (4096, 2048), "gate_up": (14336, 4096), "down": (4096, 7168), "qkv": (3072, 4096)}

Sum = Callable[[Tensor, Tensor, Tensor], Tensor]  # part, residual, gain: the normalised sum


def ways(rows: MappedRows, sums: SymmetricSums, count: int) -> dict[str, Sum]:
    """Everything that sums, by name."""

    def nccl(x: Tensor, residual: Tensor, gain: Tensor) -> Tensor:
        dist.all_reduce(x)
        return add_norm(x, residual, Norm(gain, EPS), dependent=True)

    def one_shot(x: Tensor, residual: Tensor, gain: Tensor) -> Tensor:
        return add_norm(sums.sum(x), residual, Norm(gain, EPS), dependent=True)

    def inboxes(x: Tensor, residual: Tensor, gain: Tensor) -> Tensor:
        return rows.add_rms_norm(x, residual, gain, EPS)

    found: dict[str, Sum] = {"nccl": nccl, "inboxes": inboxes}
    if count * HIDDEN * 2 <= LARGEST:
        found["one-shot"] = one_shot
    return found


def alone(total: Sum, count: int) -> float:
    """A sum of `count` rows behind another."""
    x, residual, gain = (
        torch.randn(*shape, device="cuda").bfloat16()
        for shape in ((count, HIDDEN), (count, HIDDEN), (HIDDEN,))
    )

    return microseconds(lambda _: total(x, residual, gain), CALLS, REPLAYS)


def layer(total: Sum, weights: list[dict[str, Tensor]], count: int) -> float:
    """The products of a layer of `count` rows, and two sums."""
    gain = torch.ones(HIDDEN, device="cuda", dtype=torch.bfloat16)
    x, residual = (torch.randn(count, HIDDEN, device="cuda").bfloat16() for _ in range(2))

    y = x

    def launch(i: int) -> None:
        nonlocal y
        if i == 0:
            y = x
        heads = served_linear(y, weights[i]["qkv"])[:, :2048]
        y = total(served_linear(heads, weights[i]["o"]), residual, gain)
        wide = served_gated(y, weights[i]["gate_up"])
        y = total(served_linear(wide, weights[i]["down"]), residual, gain)

    return microseconds(launch, len(weights), REPLAYS)


def measure(rank: int, folder: Path, results: Any) -> None:
    """All figures of one rank."""
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    group = join_group({"RANK": str(rank), "WORLD_SIZE": "2"}, folder, device)
    group = group.with_rows(device, HIDDEN, torch.bfloat16, dependent=True)
    assert group.rows is not None and group.small_sums is not None, "no mapped memory"
    weights = [
        {
            name: torch.randn(n, k, device=device, dtype=torch.bfloat16) * k**-0.5
            for name, (n, k) in SHAPES.items()
        }
        for _ in range(LAYERS)
    ]

    def products(x: Tensor, residual: Tensor, gain: Tensor) -> Tensor:
        return add_norm(x, residual, Norm(gain, EPS), dependent=True)

    found: dict[str, dict[str, dict[int, float]]] = {"alone": {}, "layer": {}}
    for count in (1, 8, 64, 128, 256):
        for name, total in ways(group.rows, group.small_sums, count).items():
            found["alone"].setdefault(name, {})[count] = alone(total, count)
    for count in (1, 8, 64):
        every = ways(group.rows, group.small_sums, count) | {"products": products}
        for name, total in every.items():
            found["layer"].setdefault(name, {})[count] = layer(total, weights, count)
    results.put((rank, found))
    results.close()
    results.join_thread()


def main() -> None:
    """Two processes, a table, and the figures as a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=measure, args=(rank, Path(folder), results), daemon=True)
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        found = dict(results.get(timeout=120) for _ in ranks)[0]
    for kind, table in found.items():
        for name, figures in table.items():
            print(f"{kind:6} {name:18}", *(f"{n:4}: {us:7.2f}" for n, us in figures.items()))
    arguments.out.write_text(json.dumps(facts() | {"microseconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
