"""Compiles the GPU kernels for cards that are not there, by the functions that launch them.

python -m support.compiled_kernels {few,all} CAPABILITY...     such as 75, 80, 89, 90 or 100

Prints a line of JSON for each variant of a kernel that was compiled: the case, the kernel, the
seconds it took, the shared memory it asks for, and products that a loop of it leaves running. Fails
with the case that a compiler refuses.
Needs TRITON_INTERPRET unset and no GPU: tensors stand in memory, and nothing is launched.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from penstock_kernels.draw import SamplingBatch
from penstock_kernels.gpu.launch import card, hopper
from penstock_kernels.ops import Act, Activation, AttentionSpec, Norm, NormKind, QKNorm
from penstock_kernels.penalties import Penalties
from penstock_kernels.weight import Layout, Weight
from penstock_quantization.lut import Coded, packed
from penstock_quantization.online import fp8
from support.cards import SHARED_KIB
from support.paged import PagedCase, paged_case, sinks_of
from support.running_products import left_running
from support.stacks import KINDS, on, stack_of, with_bias
from support.whole_numbers import rounded

HALF = (torch.bfloat16, torch.float16)
ALL = (*HALF, torch.float32)
SCALE = 0.1


class Driver:
    """As much of a driver as compiling needs."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A use of kernels that is compiled for each of the dtypes."""

    run: Callable[[torch.dtype, bool], None]  # and whether to launch dependently
    dtypes: tuple[torch.dtype, ...] = ALL
    cards: range = range(75, 1000)  # compute capabilities that get to it
    few: bool = True  # whether it is among the few of the test suite
    turn: int | None = None  # of those that differ in arithmetic alone a card's few are every third

    def among_the_few(self, capability: int) -> bool:
        place = sorted(SHARED_KIB).index(capability)
        return self.few and (self.turn is None or self.turn % 3 == place % 3)


def stands_for(capability: int) -> None:
    """Tensors in memory count as those of such a card."""
    triton.runtime.driver.set_active(Driver(capability))  # type: ignore[no-untyped-call]
    hopper.is_hopper = lambda device: capability // 10 == 9  # type: ignore[assignment]
    hopper.multiprocessors = lambda device: 132  # type: ignore[assignment]
    card.shared_bytes = lambda device: SHARED_KIB[capability] << 10  # type: ignore[assignment]
    card.converts_fp8 = lambda device: capability >= 89  # type: ignore[assignment]
    card.multiplies_pairs = lambda device: capability >= 90  # type: ignore[assignment]
    card.has_fp8 = lambda device: capability >= 89  # type: ignore[assignment]
    card.has_tensor_cores = lambda device: capability >= 80  # type: ignore[assignment]


def attention_case(width: int, heads: int = 4, kv_heads: int = 2, page: int = 64) -> PagedCase:
    return paged_case([(130, 1), (70, 1), (90, 40)], heads, kv_heads, width, page)


def attention(
    width: int,
    window: int | None = None,
    cap: float | None = None,
    heads: int = 4,
    stored: torch.dtype | None = None,
    has_sinks: bool = False,
) -> Callable[[torch.dtype, bool], None]:
    """A step with decode rows and a chunk: by a device as the shard makes it."""

    def run(dtype: torch.dtype, dependent: bool) -> None:
        from penstock_kernels.gpu.device import TritonDevice
        from penstock_kernels.ops import EagerPlan, StepBatch

        case = attention_case(width, heads).to("cpu", dtype)
        if stored is not None:
            case = case.in_fp8(stored)
        spec = AttentionSpec(heads, 2, width, SCALE, window, 0, cap, cache=case.stored)
        angles = torch.zeros(256, 2, width // 2)
        device = TritonDevice([spec], (angles,), 4, case.cache, dependent, dtype)
        plan = EagerPlan(torch.arange(3), case.context, case.queries)
        step = device.step(StepBatch(case.slot, case.position, case.table, 2, plan))
        step._plan(spec)
        step.attend(case.query, spec, case.cache, None, sinks_of(heads) if has_sinks else None)

    return run


def deterministic_attention(
    width: int, window: int | None = None, stored: torch.dtype | None = None
) -> Callable[[torch.dtype, bool], None]:
    """Of rows that decode, and of a chunk."""

    def run(dtype: torch.dtype, dependent: bool) -> None:
        from penstock_kernels.gpu.attention.invariant_attention import InvariantAttention

        case = attention_case(width).to("cpu", dtype)
        if stored is not None:
            case = case.in_fp8(stored)
        spec = AttentionSpec(4, 2, width, SCALE, window, cache=case.stored)
        attend = InvariantAttention(4, spec.shape, torch.device("cpu"), dtype)
        out = torch.zeros_like(case.query).flatten(1)
        shared = (case.query, case.cache, case.table, case.slot, case.position)
        attend(*shared, attend.singles(2, None), out, spec, attend.programs(2))
        attend(*shared, torch.tensor([[2, 16]], dtype=torch.int32), out, spec)

    return run


def deterministic_products(kind: str, rows: tuple[int, ...]) -> Callable[[torch.dtype, bool], None]:
    """With the tiles of so many rows."""

    def run(dtype: torch.dtype, dependent: bool) -> None:
        from penstock_kernels.gpu.products.invariant_linear import invariant_linear
        from penstock_kernels.gpu.products.invariant_tiles import rules_of, tile_of

        rules, grouped, _ = rules_of(torch.device("cpu"), dtype)
        weight = weight_of_kind(kind, 4096, 4096, dtype)
        for count in rows:
            tile = tile_of(grouped if "blocks" in kind else rules, count, weight.n)
            invariant_linear(torch.zeros(count, weight.k, dtype=dtype), weight, tile, dependent)

    return run


def rotation(
    width: int,
    rotary: int | None = None,
    norm: NormKind | None = None,
    joint: bool = False,
    stored: torch.dtype | None = None,
    interleaved: bool = False,
) -> Callable[[torch.dtype, bool], None]:
    def run(dtype: torch.dtype, dependent: bool) -> None:
        from penstock_kernels.gpu.step.rope import RowPlacement, rope_and_write

        case = attention_case(width).to("cpu", dtype)
        if stored is not None:
            case = case.in_fp8(stored)
        rows = len(case.query)
        angles = torch.zeros(256, 2, (rotary or width) // 2)
        spec = AttentionSpec(4, 2, width, SCALE, rotary=rotary, interleaved=interleaved)
        norms = None
        if norm is not None:
            heads = (4, 2) if joint else (1, 1)
            weights = (torch.ones(count * width, dtype=dtype) for count in heads)
            query, key = (Norm(weight, 1e-6, norm) for weight in weights)
            norms = QKNorm(query, key, (lambda means: means) if joint else None)
        placement = RowPlacement(case.slot, case.position, case.table, angles)
        rope_and_write(
            torch.zeros(rows, 8 * width, dtype=dtype), case.cache, placement, spec, norms, dependent
        )

    return run


def norms(kind: NormKind) -> Callable[[torch.dtype, bool], None]:
    def run(dtype: torch.dtype, dependent: bool) -> None:
        from penstock_kernels.gpu.step.norm import add_norm, normalise

        x, weight = torch.zeros(3, 4096, dtype=dtype), torch.ones(4096, dtype=dtype)
        norm = Norm(weight, 1e-5, kind, weight)
        normalise(x, norm, dependent)
        add_norm(x, x.clone(), norm, dependent)
        add_norm(torch.zeros(3, 3, 4096), x, norm, dependent)

    return run


def activations(act: Act) -> Callable[[torch.dtype, bool], None]:
    def run(dtype: torch.dtype, dependent: bool) -> None:
        from penstock_kernels.gpu.step.activation import activate, gate

        gate(torch.zeros(3, 4096, dtype=dtype), act, dependent)
        activate(torch.zeros(3, 4096, dtype=dtype), act, dependent)

    return run


def rows_made_in_fp8(dtype: torch.dtype, dependent: bool) -> None:
    """By what makes the rows."""
    from penstock_kernels.gpu.products.quantise import room_for
    from penstock_kernels.gpu.step.activation import gate
    from penstock_kernels.gpu.step.norm import add_norm

    x = torch.zeros(3, 4096, dtype=dtype)
    norm = Norm(torch.ones(4096, dtype=dtype), 1e-5)
    add_norm(x, x.clone(), norm, dependent, room=room_for(x, 4096))
    gate(torch.zeros(3, 2 * 14_336, dtype=dtype), Act.SILU, dependent, room=room_for(x, 14_336))


def experts(
    rows: int, kind: str = "dense", biased: bool = False
) -> Callable[[torch.dtype, bool], None]:
    def run(dtype: torch.dtype, dependent: bool) -> None:
        from penstock_kernels.experts import Experts
        from penstock_kernels.gpu.products.experts import mix

        up, down = (on(stack_of(kind, 8, n, 256), "cpu", dtype) for n in (512, 256))
        logits = torch.zeros(rows, 8, dtype=dtype)
        act = Act.SILU
        if biased:
            act = Act.CLAMPED_SWIGLU
            up, down = (with_bias(each, torch.zeros(8, each.n, dtype=dtype)) for each in (up, down))
        some = Experts(up, down, act, 2, True)
        mix(torch.zeros(rows, 256, dtype=dtype), logits, some, dependent)

    return run


def weight_of_kind(kind: str, n: int, k: int, dtype: torch.dtype) -> Weight:
    bias = torch.zeros(n, dtype=dtype) if "biased" in kind else None
    weight = Weight(torch.zeros(n, k, dtype=dtype), bias)
    if "fp8" in kind:
        weight = fp8(weight, lambda largest: largest)
    if "4 bits" in kind:
        group = 32 if "groups" in kind else 64 if "half tiles" in kind else 128
        weight = rounded(weight, 4, group, zeros="zeros" in kind)
        weight = replace(weight, fp8_rows="rows in FP8" in kind)
    if "8 bits" in kind:
        weight = rounded(weight, 8, 128 if "groups" in kind else None)
    if "codes" in kind:
        weight = coded(weight, kind)
    if "blocks" in kind:
        weight = replace(
            weight, layout=Layout.FP8_BLOCKS, scale=torch.ones(n // 128, k // 128),
            scale_rows=128, scale_columns=128,
        )  # fmt: skip
    return weight


def products(
    rows: int, kind: str, n: int = 4096, k: int = 4096
) -> Callable[[torch.dtype, bool], None]:
    """Every row of the table that a weight of this kind gets to, but for those of libraries."""

    def run(dtype: torch.dtype, dependent: bool) -> None:
        from penstock_kernels.gpu.products.problem import Epilogue
        from penstock_kernels.gpu.products.table import find

        weight = weight_of_kind(kind, n, k, dtype)
        x = Activation(torch.zeros(rows, k, dtype=dtype))
        for epilogue in (Epilogue.NONE, Epilogue.PARTIAL, Epilogue.GATED):
            launch = find(epilogue, x, weight)
            if launch is not None and not by_library(launch):
                launch(x, weight, dependent)
        for way in (NormKind.RMS, NormKind.RMS_ONE):
            raw = replace(x, norm=Norm(torch.ones(k, dtype=dtype), 1e-5, way))
            for epilogue in (Epilogue.NONE, Epilogue.GATED):
                if launch := find(epilogue, raw, weight):
                    launch(raw, weight, dependent)
        launch = find(Epilogue.RESIDUAL, x, weight)
        if rows == 1 and launch is not None and not by_library(launch):
            launch(x, weight, dependent, torch.zeros(1, n, dtype=dtype))

    return run


def coded(weight: Weight, kind: str) -> Weight:
    """Of 4-bit codes: in bitsandbytes' nf4, in NVFP4, or with a table a row."""
    n, k = weight.data.shape
    codes = torch.zeros(n, k, dtype=torch.uint8)
    if "nvfp4" in kind:
        scale = torch.ones(n, k // 16).to(torch.float8_e4m3fn)
        part = Coded(codes, "e2m1", scale=scale, group=16, outer=torch.ones(n))
    elif "tables" in kind:
        part = Coded(codes, table=torch.zeros(n, 16))
    else:
        part = Coded(codes, "nf4", scale=torch.ones(n, k // 64), group=64)
    return packed([part], weight.bias)


def by_library(launch: Any) -> bool:
    """Whether no kernel of ours computes the product."""
    return launch.func.__name__ in (
        "_launch_cublas", "launch_widened", "_launch_widened", "_launch_scaled", "_launch_add",
    )  # fmt: skip


def rotating_product(
    kind: str, width: int, stored: torch.dtype | None = None
) -> Callable[[torch.dtype, bool], None]:
    def run(dtype: torch.dtype, dependent: bool) -> None:
        from penstock_kernels.gpu.products.problem import Epilogue
        from penstock_kernels.gpu.products.table import find
        from penstock_kernels.gpu.step.rope import RowPlacement

        case = attention_case(width).to("cpu", dtype)
        if stored is not None:
            case = case.in_fp8(stored)
        n, k, rows = 8 * width, 1024, 16
        bias = torch.zeros(n, dtype=dtype) if "biased" in kind else None
        weight = Weight(torch.zeros(n, k, dtype=dtype), bias)
        weight = fp8(weight, lambda largest: largest) if "fp8" in kind else weight
        weight = rounded(weight, 8, None) if "8 bits" in kind else weight
        x = Activation(torch.zeros(rows, k, dtype=dtype))
        launch = find(Epilogue.ROTATE, x, weight, width)
        assert launch is not None
        angles = torch.zeros(256, 2, width // 2)
        placement = RowPlacement(
            torch.zeros(rows).long(), torch.zeros(rows).long(), case.table, angles
        )
        launch(x, weight, dependent, case.cache, placement)

    return run


def widened_4_bits(dtype: torch.dtype, dependent: bool) -> None:
    from penstock_kernels.gpu.products.int4_linear import widened

    for zeros in (False, True):
        widened(rounded(Weight(torch.zeros(64, 256, dtype=dtype)), 4, 64, zeros), dtype, dependent)


def portable_rows_in_fp8(dtype: torch.dtype, dependent: bool) -> None:
    """What other cards than Hopper compute."""
    from penstock_kernels.gpu.products.w4a8_linear import w4a8_linear

    for kind in ("4 bits", "4 bits, zeros, biased, half tiles"):
        weight, x = weight_of_kind(kind, 4096, 4096, dtype), torch.zeros(128, 4096)
        q, scale = x.to(torch.float8_e4m3fn), torch.ones(128, 1)
        w4a8_linear(q, scale, weight, torch.zeros(128, 4096, dtype=dtype), dependent)


def widened_weights(dtype: torch.dtype, dependent: bool) -> None:
    from penstock_kernels.gpu.products.widen import widened

    weight = fp8(Weight(torch.zeros(64, 256, dtype=dtype)), lambda largest: largest)
    widened(weight, dtype, dependent)


def looked_up_weights(dtype: torch.dtype, dependent: bool) -> None:
    from penstock_kernels.gpu.products.lut_linear import widened
    from penstock_kernels.gpu.products.parts import summed

    summed(torch.zeros(2, 3, 64), dtype, dependent)
    for kind in ("codes", "codes, nvfp4", "codes, tables"):
        widened(coded(Weight(torch.zeros(64, 256)), kind), dtype, dependent)


def quantised_rows(dtype: torch.dtype, dependent: bool) -> None:
    from penstock_kernels.gpu.products.quantise import quantise_rows

    for width in (4096, 100):
        quantise_rows(torch.zeros(3, width, dtype=dtype), dependent)


def step_rows(dtype: torch.dtype, dependent: bool) -> None:
    """What a step does with slots, blocks and most likely tokens."""
    from penstock_kernels.gpu.sampling.argmax import argmax
    from penstock_kernels.gpu.step.blocks import copy_blocks
    from penstock_kernels.gpu.step.slots import advance_slots, read_slots

    slot, last, lengths = (torch.zeros(4).long() for _ in range(3))
    read_slots(slot, last, lengths, None, dependent)
    read_slots(slot, last, lengths, (slot, slot), dependent)
    advance_slots(slot, slot, None, None, last, lengths, dependent)
    advance_slots(slot, slot, slot, slot, last, lengths, dependent)
    cache = torch.zeros(2, 2, 2, 4, 16, 64, dtype=dtype)
    copy_blocks(cache, torch.zeros(1).long(), torch.ones(1).long())
    logits = torch.zeros(4, 5000, dtype=dtype)
    argmax(logits, logits.clone(), slot, dependent)


def sampling(dtype: torch.dtype, dependent: bool) -> None:
    from penstock_kernels.gpu.sampling.sampler import TritonSampler

    sampler, slots = TritonSampler(dependent), 4
    rows = torch.arange(slots)
    logits, real = torch.zeros(slots, 5000, dtype=dtype), torch.ones(slots)
    kinds = ((False, False, False), (True, True, True), (False, False, True))
    for any_top_k, any_top_p, cuts in kinds:
        draws = SamplingBatch(
            slots=rows, rows=rows, temperature=real, top_k=rows, top_p=real, min_p=real,
            keys=torch.zeros(slots, 2, dtype=torch.int32), generated=rows, any_top_k=any_top_k,
            any_top_p=any_top_p, any_filter=cuts,
        )  # fmt: skip
        sampler.draw(logits, draws)
    counts = torch.zeros(slots, 5000, dtype=torch.int32)
    sampler.penalise(logits, Penalties(rows, rows, counts, real, real, real))


def gated_product(dtype: torch.dtype, dependent: bool) -> None:
    from penstock_kernels.gpu.products.hopper_gated import hopper_gated_linear

    x, weight = torch.zeros(1024, 512, dtype=dtype), torch.zeros(2048, 512, dtype=dtype)
    hopper_gated_linear(x, weight, x.new_empty(1024, 1024))


def rank_sums(dtype: torch.dtype, dependent: bool) -> None:
    from penstock_kernels.gpu.ranks.rank_choice import TURNS as VOTE_TURNS
    from penstock_kernels.gpu.ranks.rank_choice import Votes, argmax_over_ranks
    from penstock_kernels.gpu.ranks.rank_sum import Inboxes, bits_of, inbox_shape, sum_add_rms_norm

    x, rows = torch.zeros(4, 4096, dtype=dtype), 8
    every = tuple(torch.zeros(inbox_shape(4096, 2), dtype=bits_of(dtype)) for _ in range(2))
    inboxes = Inboxes(0, dtype, every, torch.zeros(rows, dtype=torch.int32))
    sum_add_rms_norm(x, inboxes, x.clone(), x[0], 1e-5, dependent)
    votes = Votes(
        0,
        tuple(torch.zeros(VOTE_TURNS, 2, rows, dtype=torch.int64) for _ in range(2)),
        torch.zeros(rows, dtype=torch.int32),
    )
    argmax_over_ranks(x, x.clone(), torch.zeros(4).long(), 0, votes, dependent)


HOPPER = range(90, 100)
CASES: dict[str, Case] = {
    "attention": Case(attention(128)),
    "experts of one row": Case(experts(1)),
    "experts of few rows": Case(experts(2)),
    "experts of many rows": Case(experts(1024), few=False),
    "experts of MXFP4 with biases": Case(experts(16, "mxfp4", biased=True)),
    "attention with sinks": Case(attention(64, 64, heads=16, has_sinks=True), turn=1),
    "attention with sinks and a soft cap": Case(
        attention(64, cap=50.0, has_sinks=True), few=False
    ),
    "attention of FP8 with sinks": Case(
        attention(64, heads=16, stored=torch.float8_e4m3fn, has_sinks=True), few=False
    ),
    "attention of FP8 of many heads with sinks": Case(
        attention(64, 64, heads=128, stored=torch.float8_e4m3fn, has_sinks=True), few=False
    ),
    **{
        f"experts of {rows} rows, {kind}": Case(experts(rows, kind), few=False)
        for kind in KINDS
        for rows in (1, 2, 1024)
        if kind != "dense"
    },
    "attention with a window": Case(attention(128, window=64), few=False),
    "attention with a soft cap": Case(attention(64, cap=50.0), few=False),
    "attention with both": Case(attention(64, window=64, cap=50.0), turn=1),
    "attention of wide heads with both": Case(attention(256, window=64, cap=50.0), few=False),
    "attention of wide heads": Case(attention(256), few=False),
    "attention of odd heads": Case(attention(80), few=False),
    "attention of many heads": Case(attention(128, heads=16), few=False),
    "attention of FP8": Case(attention(128, stored=torch.float8_e4m3fn)),
    "attention of other FP8": Case(attention(64, 64, stored=torch.float8_e5m2), few=False),
    "attention of FP8 with a soft cap": Case(
        attention(256, cap=50.0, stored=torch.float8_e4m3fn), few=False
    ),
    "attention of FP8 of many heads": Case(
        attention(128, heads=32, stored=torch.float8_e4m3fn), few=False
    ),
    "deterministic attention": Case(deterministic_attention(128)),
    "deterministic attention with a window, of FP8": Case(
        deterministic_attention(128, 64, torch.float8_e4m3fn), few=False
    ),
    "deterministic attention of wide heads": Case(deterministic_attention(256), few=False),
    "deterministic products": Case(deterministic_products("dense", (1,))),
    "deterministic products of many rows": Case(
        deterministic_products("biased", (32, 64, 256, 1024, 4096)), few=False
    ),
    "deterministic products in FP8": Case(
        deterministic_products("fp8", (1, 64, 256)), cards=range(89, 1000), few=False
    ),
    "deterministic products in blocks of FP8": Case(
        deterministic_products("fp8, blocks", (1, 256)), HALF, range(89, 1000), few=False
    ),
    "rotation": Case(rotation(128)),
    "rotation of a part": Case(rotation(128, rotary=32)),
    "rotation to FP8": Case(rotation(128, stored=torch.float8_e4m3fn)),
    "rotation of a part to FP8": Case(rotation(128, 32, stored=torch.float8_e5m2), few=False),
    "rotation of neighbours": Case(rotation(128, rotary=64, interleaved=True), few=False),
    "rotation with norms": Case(rotation(128, norm=NormKind.RMS), few=False),
    "rotation with norms of all heads": Case(rotation(128, None, NormKind.RMS, True)),
    "rotation with other norms": Case(rotation(256, norm=NormKind.RMS_ONE), few=False),
    **{f"norms, {kind.value}": Case(norms(kind), turn=i) for i, kind in enumerate(NormKind)},
    **{f"activations, {act.value}": Case(activations(act), turn=i) for i, act in enumerate(Act)},
    "rows in FP8, by what makes them": Case(rows_made_in_fp8, HALF, range(89, 1000)),
    "steps": Case(step_rows),
    "sampling": Case(sampling, turn=1),
    "rows in FP8": Case(quantised_rows, cards=range(89, 1000)),
    "one row": Case(products(1, "dense"), HALF),
    "one row, biased": Case(products(1, "biased"), HALF, few=False),
    "one row in FP8": Case(products(1, "fp8", k=1024), HALF, few=False),
    "few rows": Case(products(16, "dense"), HALF),
    "few rows, biased": Case(products(16, "biased"), HALF, few=False),
    "64 rows": Case(products(64, "dense"), HALF, few=False),
    "few rows of a head": Case(products(16, "dense", 32768), HALF),
    "few rows in FP8": Case(products(16, "fp8"), HALF),
    "few rows in FP8, biased": Case(products(64, "fp8, biased"), HALF, few=False),
    "one row in blocks of FP8": Case(products(1, "fp8, blocks"), HALF),
    "few rows in blocks of FP8": Case(products(16, "fp8, blocks"), HALF),
    "one row in 4 bits": Case(products(1, "4 bits"), HALF),
    "one row in 4 bits with zeros": Case(products(16, "4 bits, zeros"), HALF, few=False),
    "few rows in small groups of 4 bits": Case(products(16, "4 bits, groups, biased"), HALF),
    "64 rows in 4 bits": Case(products(64, "4 bits"), HALF),
    "many rows in 4 bits": Case(products(1024, "4 bits, zeros"), HALF),
    "many rows in FP8 of 4 bits": Case(
        products(128, "4 bits, rows in FP8"), HALF, range(89, 1000)
    ),
    "more rows in FP8 of 4 bits": Case(
        products(1024, "4 bits, zeros, biased, rows in FP8"), HALF, range(89, 1000), few=False
    ),
    "rows in FP8 of small groups of 4 bits": Case(
        products(1024, "4 bits, zeros, half tiles, rows in FP8"), HALF, range(89, 1000), few=False
    ),
    "rows in FP8 of 4 bits by any card": Case(portable_rows_in_fp8, HALF, range(89, 1000)),
    "4 bits in memory": Case(widened_4_bits, turn=1),
    "one row in 8 bits": Case(products(1, "8 bits", k=1024), HALF),
    "few rows in 8 bits": Case(products(16, "8 bits"), HALF),
    "few rows in groups of 8 bits": Case(products(16, "8 bits, groups"), HALF, few=False),
    "products that rotate in 8 bits": Case(
        rotating_product("8 bits", 128), HALF, HOPPER, few=False
    ),
    "one row of codes": Case(products(1, "codes", k=1024), HALF, few=False),
    "few rows of codes": Case(products(16, "codes"), HALF),
    "64 rows of codes, biased": Case(products(64, "codes, biased"), HALF, few=False),
    "few rows of NVFP4": Case(products(16, "codes, nvfp4"), HALF, few=False),
    "one row of codes in tables": Case(products(1, "codes, tables"), HALF, few=False),
    "codes in memory": Case(looked_up_weights, turn=1),
    "FP8 in memory": Case(widened_weights, cards=range(89, 1000)),
    "products that rotate": Case(rotating_product("dense", 128), HALF, HOPPER),
    "products that rotate in FP8": Case(rotating_product("fp8", 128), HALF, HOPPER),
    "products that rotate to FP8": Case(
        rotating_product("dense", 128, torch.float8_e4m3fn), HALF, HOPPER
    ),
    "biased products that rotate": Case(rotating_product("biased", 64), HALF, HOPPER, few=False),
    "many rows, gated": Case(gated_product, HALF, HOPPER),
    "sums over ranks": Case(rank_sums, HALF, range(90, 1000)),
}  # fmt: skip


def compiled(capability: int, every: bool) -> list[str]:
    """A line of JSON for each variant. Raises RuntimeError that names what a compiler refuses."""
    stands_for(capability)
    at: dict[str, object] = {}
    lines = []
    do_compile = JITFunction._do_compile

    def compile_one(self: Any, *arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        kernel = do_compile(self, *arguments, **options)
        module = self.fn.__module__.rpartition(".")[2]
        seconds = round(time.perf_counter() - began, 2)
        found = {
            "kernel": f"{module}.{self.fn.__name__}", "seconds": seconds,
            "shared": int(kernel.metadata.shared), "running": left_running(kernel.asm["ttgir"]),
        }  # fmt: skip
        lines.append(json.dumps(at | found))
        return kernel

    JITFunction._do_compile = compile_one  # type: ignore[method-assign]
    JITFunction.__getitem__ = lambda kernel, grid: functools.partial(  # type: ignore[assignment]
        kernel.run, grid=grid, warmup=True
    )
    for name, case in CASES.items():
        if capability not in case.cards or not (every or case.among_the_few(capability)):
            continue
        usable = [d for d in case.dtypes if capability >= 80 or d is not torch.bfloat16]
        for dtype in usable if every else usable[:1]:
            kind = str(dtype).removeprefix("torch.")
            at = {"capability": capability, "case": name, "dtype": kind}
            try:
                case.run(dtype, capability >= 90)
            except Exception as error:
                raise RuntimeError(f"sm_{capability}, {name}, {kind}: {error!r}") from error
    return lines


def main() -> None:
    every, capabilities = sys.argv[1] == "all", [int(name) for name in sys.argv[2:]]
    tasks = [(capability, every) for capability in capabilities]
    fork = multiprocessing.get_context("fork")  # what is imported stays so
    with fork.Pool(maxtasksperchild=1) as pool:  # Triton remembers the card
        for lines in pool.starmap(compiled, tasks, chunksize=1):
            print("\n".join(lines))


if __name__ == "__main__":
    main()
