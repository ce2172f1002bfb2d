"""How fast decode attention reads, rows apart and together. Needs a CUDA device.

    python -m benchmarks.kernels.decode --out decode.json

A CUDA graph of 16 layers over several caches, so that no cache comes from L2; the plan is made
before, as in a step, whose layers share it. One line a case: microseconds a layer and, of the best
way, the bytes that it must read in that time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from benchmarks.kernels.timing import microseconds

from penstock_kernels.gpu.attention import decode_merge, hopper_decode
from penstock_kernels.gpu.attention.decode_attention import DecodeAttention
from penstock_kernels.gpu.attention.hopper_decode import HopperDecode, supports_hopper_decode
from penstock_kernels.ops import Sharing
from penstock_shard.steps.sharing import SharingTensors


@dataclass(frozen=True, slots=True)
class Case:
    """Rows of equal context, which share their first tokens."""

    rows: int
    context: int
    shared: int

    def bytes_read(self, page: int, token_bytes: int) -> int:
        """Of keys and values, shared ones once."""
        whole = self.shared // page * page
        return (self.rows * (self.context - whole) + whole) * token_bytes


CASES = [Case(64, 1056, 960), Case(32, 2064, 1984), Case(256, 2048, 1984)]
CASES += [Case(8, 2064, 1984), Case(4, 1056, 960)]
CASES += [Case(rows, 576, 0) for rows in (1, 2, 4, 8, 12, 16, 32, 64, 128, 256)]
CASES += [Case(1, 7000, 0), Case(16, 7000, 0)]

# What else the kernel for Hopper could be, by the names that its parts have.
VARIANTS: dict[str, dict[str, Any]] = {
    "hopper": {},
    "old merge": {"merge": decode_merge.merge},
    "one resident": {"RESIDENT": 1, "STAGES": 6},
}


class Bench:
    """Rotating caches of one case; as many as `layers` says, None: enough for most cases."""

    def __init__(
        self,
        case: Case,
        heads: int,
        kv_heads: int,
        width: int,
        page: int,
        layers: int | None = None,
        device: str = "cuda",
    ) -> None:
        self.case, self.heads, self.kv_heads, self.width = case, heads, kv_heads, width
        rows, columns = case.rows, case.context // page + 1
        blocks = rows * columns + 1
        layers = layers or (8 if blocks * page * kv_heads * width * 4 < 3e9 else 4)
        shape = (2, kv_heads, blocks, page, width)
        self.caches = [
            torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(layers)
        ]
        self.page, common = page, case.shared // page
        self.table = torch.randperm(rows * columns, device=device).int().view(rows, columns) + 1
        self.table[:, :common] = self.table[0, :common].clone()
        self.slots = torch.arange(rows, device=device)
        self.positions = torch.full((rows,), case.context - 1, device=device)
        self.query = torch.randn(rows, heads, width, device=device, dtype=torch.bfloat16)
        self.out = torch.empty(rows, heads * width, device=device, dtype=torch.bfloat16)

    def sharing(self, tile_rows: int) -> Sharing | None:
        """As a shard cuts the rows into tiles."""
        device = self.query.device
        tensors = SharingTensors(max(2, self.case.rows), tile_rows, device)
        if self.case.shared:
            count, blocks = [self.case.rows], [self.case.shared // self.page]
            tensors.load(np.array(count), np.array(blocks), self.page)
        return tensors.view(self.case.rows)

    def _sizes(self) -> tuple[int, int, int, int, torch.device]:
        return self.case.rows, self.heads, self.kv_heads, self.width, self.query.device

    def portable(self, together: bool, dependent: bool) -> float:
        """Microseconds of a layer by `DecodeAttention`."""
        attend = DecodeAttention(*self._sizes(), dependent)
        sharing = self.sharing(attend.tile_rows) if together else None
        plan = attend.plan(self.positions, None, sharing)
        torch.cuda.synchronize()  # a plan must be older than the launch before
        scale, caches = self.width**-0.5, self.caches

        def launch(i: int) -> None:
            attend(
                self.query, caches[i % len(caches)], self.table, self.slots, self.positions,
                self.out, plan, scale,
            )  # fmt: skip

        return microseconds(launch)

    def hopper(self, dependent: bool, parts: dict[str, Any]) -> float:
        """Microseconds of a layer by `HopperDecode`."""
        with patch.multiple(hopper_decode, **parts) if parts else nullcontext():
            attend = HopperDecode(*self._sizes(), dependent)
            sharing = self.sharing(attend.tile_rows)
            plan = attend.plan(self.positions, self.slots, None, sharing)
            torch.cuda.synchronize()
            scale, caches = self.width**-0.5, self.caches

            def launch(i: int) -> None:
                attend(self.query, caches[i % len(caches)], self.table, self.out, plan, scale)

            return microseconds(launch)


def ways(bench: Bench) -> dict[str, Callable[[], float]]:
    """What is measured of a case."""
    found: dict[str, Callable[[], float]] = {"portable": partial(bench.portable, True, True)}
    if bench.case.shared:
        found["apart"] = partial(bench.portable, False, True)
    if supports_hopper_decode(bench.query.device, bench.caches[0], bench.heads):
        for name, parts in VARIANTS.items():
            found[name] = partial(bench.hopper, True, parts)
        found["one by one"] = partial(bench.hopper, False, {})
        found["without merge"] = partial(bench.hopper, True, {"merge": lambda *_: None})
    return found


def measure(case: Case, heads: int, kv_heads: int, width: int, page: int) -> dict[str, Any]:
    """Times of all ways, printed as a line."""
    bench = Bench(case, heads, kv_heads, width, page)
    times = {name: run() for name, run in ways(bench).items()}
    size = case.bytes_read(page, kv_heads * width * 4)
    line = "  ".join(f"{name} {us:.1f}" for name, us in times.items())
    best = min(us for name, us in times.items() if name != "without merge")
    print(
        f"width {width:3} {case.rows:3} x {case.context:4} ({case.shared:4} shared): {line} | "
        f"{size / best / 1e6:.2f} TB/s",
        flush=True,
    )
    return {"width": width, **asdict(case), "bytes": size, "us": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=int, default=64)
    arguments = parser.parse_args()
    found = [measure(case, 32, 8, width, arguments.page) for width in (128, 64) for case in CASES]
    result = {"gpu": torch.cuda.get_device_name(), "page": arguments.page, "decode": found}
    arguments.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
