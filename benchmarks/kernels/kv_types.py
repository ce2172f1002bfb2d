"""Attention over a KV cache in bfloat16 and in FP8, by the kernels that a card has for each.

    python -m benchmarks.kernels.kv_types --out kv_types.json

Results are held to float32 over the same numbers first. One line a case: microseconds a layer of
Llama-3.1-8B's shape, and how far FP8 is from bfloat16.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.kernels import prefill as prefills
from benchmarks.kernels.decode import Bench, Case
from benchmarks.kernels.prefill import Chunks, Inputs
from benchmarks.kernels.timing import microseconds
from torch import Tensor

from penstock_kernels.fp8 import saturated
from penstock_kernels.gpu.attention.decode_attention import DecodeAttention
from penstock_kernels.gpu.attention.hopper_decode import HopperDecode, supports_hopper_decode
from penstock_kernels.gpu.attention.prefill_attention import prefill_attention, triton_prefill
from penstock_kernels.ops import CacheSpec

HEADS, KV_HEADS, PAGE = 32, 8, 64
TYPES = {
    "bf16": CacheSpec(),
    "e4m3": CacheSpec(torch.float8_e4m3fn, 0.05, 0.02),
    "e5m2": CacheSpec(torch.float8_e5m2, 0.05, 0.02),
}
DECODES = [Case(rows, 576, 0) for rows in (1, 8, 64, 256)]
DECODES += [Case(1, 7000, 0), Case(16, 7000, 0), Case(64, 7000, 0), Case(256, 2048, 0)]
DECODES += [Case(64, 1056, 960), Case(256, 2048, 1984)]
PREFILLS = [
    Chunks(1, 4096, 0),
    Chunks(8, 512, 0),
    Chunks(1, 2048, 5000),
    Chunks(64, 24, 1000),
    Chunks(4, 64, 7000),
]


def stored(cache: Tensor, spec: CacheSpec) -> Tensor:
    """The cache as it stands in this type."""
    if spec.dtype is None:
        return cache
    by_key, by_value = spec.inverses
    out = torch.empty_like(cache, dtype=spec.dtype)
    for plane, by in enumerate((by_key, by_value)):
        out[plane] = saturated(cache[plane].float() * by, spec.dtype)
    return out


def dequantised(cache: Tensor, spec: CacheSpec) -> Tensor:
    scales = torch.tensor([spec.key_scale, spec.value_scale], device=cache.device)
    return cache.float() * scales.view(2, 1, 1, 1, 1)


def decode(case: Case, width: int) -> dict[str, float]:
    """Microseconds of a layer by type, then errors."""
    bench = Bench(case, HEADS, KV_HEADS, width, PAGE)
    sizes = (case.rows, HEADS, KV_HEADS, width, bench.query.device)
    found: dict[str, float] = {}
    results: dict[str, Tensor] = {}
    for name, spec in TYPES.items():
        caches = [stored(cache, spec) for cache in bench.caches]
        if supports_hopper_decode(bench.query.device, caches[0], HEADS):
            hopper = HopperDecode(*sizes, True)
            plan = hopper.plan(bench.positions, bench.slots, None, bench.sharing(hopper.tile_rows))

            def launch(i: int, caches: list[Tensor] = caches, spec: CacheSpec = spec) -> None:
                cache = caches[i % len(caches)]
                hopper(bench.query, cache, bench.table, bench.out, plan, width**-0.5, spec)  # noqa: B023

        else:
            portable = DecodeAttention(*sizes, True)
            items = portable.plan(bench.positions, None, bench.sharing(portable.tile_rows))

            def launch(i: int, caches: list[Tensor] = caches, spec: CacheSpec = spec) -> None:
                portable(  # noqa: B023
                    bench.query, caches[i % len(caches)], bench.table, bench.slots,
                    bench.positions, bench.out, items, width**-0.5, stored=spec,  # noqa: B023
                )  # fmt: skip

        torch.cuda.synchronize()
        launch(0)
        results[name] = bench.out.float().clone()
        expected = decode_reference(bench, dequantised(caches[0], spec), width**-0.5)
        found[f"{name} error"] = error(results[name], expected)
        found[name] = microseconds(launch)
    found["e4m3 from bf16"] = error(results["e4m3"], results["bf16"])
    found["e5m2 from bf16"] = error(results["e5m2"], results["bf16"])
    return found


def decode_reference(bench: Bench, cache: Tensor, scale: float) -> Tensor:
    """[rows, heads * width] float32."""
    rows = []
    for query, table in zip(bench.query.float(), bench.table.long(), strict=True):
        key, value = cache[:, :, table].flatten(2, 3)[:, :, : bench.case.context]
        scores = query.view(KV_HEADS, -1, bench.width) @ key.transpose(1, 2) * scale
        rows.append((scores.softmax(2) @ value).flatten())
    return torch.stack(rows)


def error(x: Tensor, expected: Tensor) -> float:
    return float((x - expected).norm() / expected.norm())


def prefill(case: Chunks, width: int) -> dict[str, float]:
    """Microseconds of a layer by type, then errors."""
    given = prefills.inputs((HEADS, KV_HEADS, width), case)
    found: dict[str, float] = {}
    for name, spec in TYPES.items():
        x = given._replace(cache=stored(given.cache, spec))
        prefill_attention(*x, stored=spec)
        expected = prefills.in_float32(x._replace(cache=dequantised(x.cache, spec)))
        found[f"{name} error"] = error(x.out.float(), expected)
        found[name] = microseconds(_launch(prefill_attention, x, spec), prefills.REPEATS)
    found["portable e4m3"] = microseconds(
        _launch(triton_prefill, given._replace(cache=stored(given.cache, TYPES["e4m3"])),
                TYPES["e4m3"]), prefills.REPEATS,
    )  # fmt: skip
    return found


def _launch(way: Callable[..., None], x: Inputs, spec: CacheSpec) -> Callable[[int], None]:
    def launch(_: int) -> None:
        way(*x, stored=spec)

    return launch


def main() -> None:
    """Prints a line a case, and writes all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels.kv_types")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=128)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    lines: list[dict[str, Any]] = []
    for run, cases in ((decode, DECODES), (prefill, PREFILLS)):
        for case in cases:
            found = run(case, arguments.width)  # type: ignore[arg-type]
            torch.cuda.empty_cache()
            lines.append({"case": str(case), "found": found})
            told = "  ".join(f"{name} {number:.4g}" for name, number in found.items())
            print(f"{case!s:<62} {told}", flush=True)
    result = {"gpu": torch.cuda.get_device_name(), "width": arguments.width, "lines": lines}
    arguments.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
