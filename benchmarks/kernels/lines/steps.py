"""What a step does beside the model: slots, plans, copies of blocks, and sampling."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from benchmarks.configs import Shape
from benchmarks.kernels.lines.line import Launch, Line, dependent, randn

from penstock_kernels.gpu.attention.decode_attention import DecodeAttention
from penstock_kernels.gpu.attention.hopper_decode import HopperDecode
from penstock_kernels.gpu.sampling.sampler import TritonSampler
from penstock_kernels.gpu.step.blocks import copy_blocks
from penstock_kernels.gpu.step.slots import advance_slots, read_slots
from penstock_proto import shard_pb2
from penstock_shard.sampling.sampling import SamplingState
from penstock_shard.steps.limits import ShardLimits

ROWS = 256
PAGE = 64
BLOCKS = 64  # of the cache that blocks are copied in
SAMPLED = 64
THRESHOLD = tuple(f"threshold._{part}_kernel" for part in ("begin", "turn", "end"))
NOTHING: dict[str, Any] = {"top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0}
WANTED: dict[str, dict[str, Any]] = {  # beside the temperature
    "sampling, temperature": {},
    "sampling, top_k 50 and top_p 0.9": {"top_k": 50, "top_p": 0.9},
    "sampling, top_p 0.9": {"top_p": 0.9},
    "sampling, repetition 1.1 and top_p 0.9": {"top_p": 0.9, "repetition_penalty": 1.1},
}


def lines(shape: Shape) -> Iterator[Line]:
    """All of them for a model."""
    yield Line(
        name="inputs of a step", what=f"{ROWS} rows", kernels=("slots._read_slots_kernel",),
        moved=5 * 8 * ROWS, small=True, prepare=_take,
    )  # fmt: skip
    yield Line(
        name="what a step leaves", what=f"{ROWS} rows", kernels=("slots._advance_slots_kernel",),
        moved=5 * 8 * ROWS, small=True, prepare=_leave,
    )  # fmt: skip
    for rows in (8, ROWS):
        yield Line(
            name="plan of decode attention", what=f"{rows} rows", small=True, moved=16 * rows,
            kernels=("hopper_plan._plan_kernel",), prepare=partial(_plan_hopper, rows, shape),
        )  # fmt: skip
        yield Line(
            name="plan of decode attention, portable", what=f"{rows} rows", small=True,
            moved=16 * rows, kernels=("decode_plan._plan_kernel",),
            prepare=partial(_plan, rows, shape),
        )  # fmt: skip
    size = shape.layers * 2 * shape.kv_heads * PAGE * shape.head_dim * 2
    for count in (1, 8):
        yield Line(
            name="copy of blocks", what=f"{count} of {PAGE} tokens", moved=2 * count * size,
            kernels=("blocks._copy_kernel",), prepare=partial(_copy_blocks, count, shape),
        )  # fmt: skip
    for name, wanted in WANTED.items():
        kernels: tuple[str, ...] = THRESHOLD if wanted else ()
        if "repetition_penalty" in wanted:
            kernels = ("penalties._penalise_kernel", *kernels)
        for rows in (8, SAMPLED):
            yield Line(
                name=name, what=f"{rows} x {shape.vocab}", moved=2 * rows * shape.vocab,
                kernels=(*kernels, "draw._draw_kernel", "argmax._row_kernel"),
                prepare=partial(_sample, rows, shape.vocab, wanted),
            )  # fmt: skip


def _slots(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of rows; and the last tokens and lengths of all slots."""
    last, lengths = (torch.randint(1, 500, (ROWS + 1,), device=device) for _ in range(2))
    return torch.randperm(ROWS, device=device), last, lengths


def _take(device: torch.device, copies: int) -> Launch:
    (slots, last, lengths), how = _slots(device), dependent(device)
    return lambda _: read_slots(slots, last, lengths, **how)


def _leave(device: torch.device, copies: int) -> Launch:
    (slots, last, lengths), how = _slots(device), dependent(device)
    positions, tokens = lengths[:-1].clone(), last[:-1].clone()
    return lambda _: advance_slots(slots, positions, None, tokens, last, lengths, **how)


def _sizes(rows: int, shape: Shape, device: torch.device) -> tuple[Any, ...]:
    return rows, shape.heads, shape.kv_heads, shape.head_dim, device


def _plan_hopper(rows: int, shape: Shape, device: torch.device, copies: int) -> Launch:
    attend = HopperDecode(*_sizes(rows, shape, device), **dependent(device))
    positions = torch.randint(500, 600, (rows,), device=device)
    slots = torch.randperm(rows, device=device)
    return lambda _: attend.plan(positions, slots, None, None)


def _plan(rows: int, shape: Shape, device: torch.device, copies: int) -> Launch:
    attend = DecodeAttention(*_sizes(rows, shape, device), **dependent(device))
    positions = torch.randint(500, 600, (rows,), device=device)
    return lambda _: attend.plan(positions)


def _copy_blocks(count: int, shape: Shape, device: torch.device, copies: int) -> Launch:
    """Other blocks each time."""
    cache = randn(device, shape.layers, 2, shape.kv_heads, BLOCKS, PAGE, shape.head_dim)
    turns = BLOCKS // (2 * count)
    source, target = torch.randperm(BLOCKS, device=device).view(2, turns, count).unbind()
    return lambda i: copy_blocks(cache, source[i % turns], target[i % turns])


def _sample(
    rows: int, vocab: int, wanted: dict[str, Any], device: torch.device, copies: int
) -> Launch:
    """With a cut a row is read again some times, from L2."""
    limits = ShardLimits(
        max_prefill_tokens=1, max_slots=rows, max_sequence_length=PAGE, max_top_n=0,
        vocab_size=vocab, block_size=PAGE, num_blocks=1,
    )  # fmt: skip
    state = SamplingState(limits, device, TritonSampler(**dependent(device)))
    slots = np.arange(rows)
    for slot in slots.tolist():
        asked = shard_pb2.Sampling(**NOTHING | {"temperature": 0.8, "seed": slot} | wanted)
        state.admit(slot, np.zeros(1, np.int32), 0, asked)
    state.load(slots)
    (part,), logits = state.plan(slots).parts, randn(device, copies, rows, vocab)
    return lambda i: state.tokens(logits[i % copies], part)
