"""Which tiles the products of experts take: measured, and checked against one another.

    python -m benchmarks.kernels.expert_variants --out expert_variants.json

For each mixture, format and number of rows: the layer as it is served, with its share of a copy of
the card, and its two products in other tiles, fastest first. Takes a minute or two on one card.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.kernels.bandwidth import copy_and_read
from benchmarks.kernels.lines.experts import FORMATS, MIXTURES, Mixture, experts_of, moved
from benchmarks.kernels.timing import microseconds
from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.gpu.products.expert_groups import choose, group, tile_rows
from penstock_kernels.gpu.products.expert_tiles import tile_for
from penstock_kernels.gpu.products.experts import mix
from penstock_kernels.gpu.products.grouped import GroupedTile, grouped
from penstock_kernels.ops import Act

# Those of 32 rows multiply without asynchronous products: a warp widens while another multiplies.
FEW = [(64, 128, 4, 3), (64, 128, 4, 5), (64, 256, 4, 2), (64, 256, 4, 3), (128, 128, 8, 3),
       (128, 256, 8, 2), (32, 128, 2, 4), (32, 256, 2, 3), (32, 128, 4, 4)]  # fmt: skip
MANY = [(64, 64, 4, 3), (128, 64, 8, 3), (128, 64, 8, 4), (128, 128, 8, 2), (64, 128, 4, 3),
        (64, 128, 8, 3), (128, 128, 8, 3), (64, 64, 4, 4)]  # fmt: skip
INT4 = [(64, 128, 4, 3), (64, 128, 4, 4), (64, 128, 4, 6), (64, 128, 8, 3), (64, 128, 8, 4),
        (32, 128, 2, 4), (32, 128, 2, 6), (32, 128, 4, 4)]  # fmt: skip
ROWS = (1, 8, 64, 4096)
COPIES = 4  # of rows, which choose other experts each

Case = tuple[str, str, int]  # mixture, format, rows
PRODUCTS = ("up", "down")


def pairs_of(rows: int, count: int, top: int) -> int:
    """Of a tile."""
    return tile_rows(torch.empty(rows, 1, dtype=torch.bfloat16, device="meta"), count, top)


def tiles(case: Case, experts: Experts, product: str) -> list[GroupedTile]:
    """The server's first."""
    mixture, form, rows = case
    bm = pairs_of(rows, experts.count, experts.top)
    weight = getattr(experts, product)
    own = tile_for(weight, torch.bfloat16, bm, product == "up", torch.device("cuda", 0))
    more = INT4 if form == "INT4" else (FEW if bm <= 16 else MANY)
    return list(dict.fromkeys([own, *(GroupedTile(*tile) for tile in more)]))


def inputs_of(mixture: Mixture, rows: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Rows, logits, and rows of the second product."""
    torch.manual_seed(rows)
    shapes = ((rows, mixture.hidden), (rows, mixture.count), (rows * mixture.top, mixture.inner))
    x, logits, inner = (
        torch.randn(COPIES, *shape, device="cuda", dtype=torch.bfloat16) for shape in shapes
    )
    return list(zip(x, logits, inner, strict=True))


def launcher(
    case: Case, experts: Experts, product: str, tile: GroupedTile
) -> Callable[[int], Tensor]:
    """One of the two products, over pairs that are sorted already."""
    mixture, _, rows = case
    bm = pairs_of(rows, experts.count, experts.top)
    inputs = inputs_of(MIXTURES[mixture], rows)
    groups = [
        group(choose(logits, experts.top, True)[1], experts.count, bm) for _, logits, _ in inputs
    ]

    def launch(i: int) -> Tensor:
        x, _, inner = inputs[i % COPIES]
        if product == "up":
            return grouped(x, experts.up, groups[i % COPIES], tile, experts.top, Act.SILU, True)
        return grouped(inner, experts.down, groups[i % COPIES], tile, dependent=True)

    return launch


def compile_some(jobs: list[tuple[Case, str, int]]) -> list[str]:
    """Fill Triton's cache on disk, in a process of its own; jobs: case, product, which tile."""
    failures: list[str] = []
    made: dict[tuple[str, str], Experts] = {}
    for case, product, index in jobs:
        mixture, form, _ = case
        if (mixture, form) not in made:
            made.clear()
            made[mixture, form] = experts_of(MIXTURES[mixture], form, torch.device("cuda"))
        try:
            experts = made[mixture, form]
            tile = tiles(case, experts, product)[index]
            launcher(case, experts, product, tile)(0)
            torch.cuda.synchronize()
        except Exception as error:
            failures.append(f"{case} {product} {index}: {error!r:.200}")
    return failures


def measured(case: Case, experts: Experts, copy: float) -> Iterator[dict[str, Any]]:
    """Lines of the result, printed."""
    mixture, form, rows = case
    bytes_moved = moved(MIXTURES[mixture], form, rows)
    inputs = inputs_of(MIXTURES[mixture], rows)
    turns = 8 if rows < 512 else 2
    us = microseconds(lambda i: mix(*inputs[i % COPIES][:2], experts, True), turns, 5)
    share = bytes_moved / us / 1e6 / copy
    flops = rows * experts.top * 6 * experts.inner * experts.up.k
    text = f"{mixture:.4} {form:.5} {rows}: {us:.1f} us"
    text += f" {share:.0%}" if rows < 512 else f" {flops / us / 1e6:.0f} TF"
    found = {
        "mixture": mixture, "format": form, "rows": rows, "us": us, "share_of_copy": share,
    }  # fmt: skip
    yield found | {"product": "all"}
    for product in PRODUCTS:
        timed: list[tuple[float, str, bool]] = []
        expected: Tensor | None = None
        for index, tile in enumerate(tiles(case, experts, product)):
            try:
                launch = launcher(case, experts, product, tile)
                out = launch(0).float()
                expected = out if expected is None else expected
                wrong = float((out - expected).abs().max()) > 0.05 * float(expected.abs().max())
                timed.append((microseconds(launch, turns, 5), str(tile), wrong))
                yield found | {
                    "product": product, "tile": str(tile), "us": timed[-1][0], "wrong": wrong,
                    "served": index == 0,
                }  # fmt: skip
            except Exception as error:
                yield found | {"product": product, "tile": str(tile), "error": repr(error)[:200]}
        best = min(timed)
        numbers = ",".join(part.partition("=")[2] for part in best[1][:-1].split(","))
        text += f"; {product} {timed[0][0]:.1f} > {best[0]:.1f} ({numbers})"
        text = "WRONG " * any(wrong for *_, wrong in timed) + text
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--mixtures", nargs="+", default=list(MIXTURES))
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no case after these")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    begun = time.monotonic()
    chosen = itertools.product(arguments.mixtures, arguments.formats, arguments.rows)
    cases = [case for case in chosen if case[1] in MIXTURES[case[0]].formats]
    # One number of rows stands for all with as many pairs a tile; a process has one format's.
    jobs: dict[tuple[Any, ...], list[tuple[Case, str, int]]] = {}
    seen = set()
    for case in cases:
        mixture, form, rows = case
        bm = pairs_of(rows, MIXTURES[mixture].count, MIXTURES[mixture].top)
        for product, index in itertools.product(PRODUCTS, range(len(FEW) + 1)):
            if (mixture, form, bm, product, index) not in seen:
                seen.add((mixture, form, bm, product, index))
                jobs.setdefault((mixture, form, bm, index % 2), []).append((case, product, index))
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        failures = sum(pool.map(compile_some, jobs.values(), chunksize=1), [])
    failures = [failure for failure in failures if "list index" not in failure]
    print(f"compiled in {time.monotonic() - begun:.0f} s, {len(failures)} failed", *failures[:2])
    copy, _ = copy_and_read(torch.device("cuda"))
    print(f"copy {copy:.2f} TB/s", flush=True)
    results: list[dict[str, Any]] = []
    made: dict[tuple[str, str], Experts] = {}
    for case in cases:
        if time.monotonic() - begun > arguments.seconds:
            print("no time for", case, "and more")
            break
        if case[:2] not in made:
            made.clear()
            made[case[:2]] = experts_of(MIXTURES[case[0]], case[1], torch.device("cuda"))
        results += measured(case, made[case[:2]], copy)
        if arguments.out:
            content = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
            arguments.out.write_text(json.dumps(content | {"variants": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
