"""From whole numbers with scales, as any format has them, to a weight of a device.

A format says what its tensors mean (`Integers`); here the numbers are cut and packed again. Up to 4
bits a number takes 4 on the device, else 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penstock_kernels import int4
from penstock_kernels.fp8 import interleave
from penstock_kernels.weight import Layout, Weight
from penstock_quantization.matrix import MatrixSpec

GRANULE = 32  # columns of a group that is filled up


@dataclass(frozen=True, slots=True)
class Integers:
    """Output rows over all of their inputs: (q - zero) * scale. Signed: the middle is 0."""

    bits: int
    q: Tensor  # [rows, inputs] int8
    scale: Tensor  # [rows, groups]
    zero: Tensor | None  # [rows, groups] int16; None: 0
    group: int  # inputs that share a scale, one behind the other unless group_of is there
    group_of: Tensor | None = None  # [inputs] int64


def joined(parts: Sequence[Integers], spec: MatrixSpec, bias: Tensor | None) -> Weight | None:
    """The parts below one another, cut to the columns of the spec. None where no layout has them:
    parts whose inputs are grouped in different orders.

    Raises ValueError for groups that are too small where the columns are cut.
    """
    orders = [part.group_of for part in parts]
    first = orders[0]
    for other in orders[1:]:
        if (first is None) != (other is None):
            return None
        if first is not None and other is not None and not torch.equal(first, other):
            return None
    group = math.gcd(*(part.group for part in parts))
    if first is not None and any(part.group != group for part in parts):
        return None
    parts = [_regrouped(part, group) for part in parts]
    zeros = [part.zero for part in parts if part.zero is not None]
    zero = torch.cat([_zero(part) for part in parts]) if zeros else None
    if zero is not None and not zero.is_meta and not zero.any():
        zero = None
    whole = Integers(
        bits=max(part.bits for part in parts),
        q=torch.cat([part.q for part in parts]),
        scale=torch.cat([part.scale for part in parts]),
        zero=zero,
        group=group,
        group_of=first,
    )
    cut, order = _in_groups(whole, spec) if first is not None else (_cut(whole, spec), None)
    return pack(cut, bias, order, len(spec.columns))


def pack(numbers: Integers, bias: Tensor | None, order: Tensor | None, inputs: int) -> Weight:
    """As a device has it. Its columns are in the groups' order; `order`, `inputs`: see Weight."""
    q, scale, zero = numbers.q, numbers.scale, numbers.zero
    n, columns = q.shape
    if scale.shape[1] == 1:
        numbers = replace(numbers, group=-(-columns // int4.COLUMNS) * int4.COLUMNS)
    zero = None if zero is None else zero.to(scale.dtype)  # exact: at most 256
    group = math.gcd(numbers.group, int4.COLUMNS)
    if numbers.bits <= 4 and group >= int4.LEAST_GROUP:
        times = numbers.group // group
        scale = _repeated(scale, times, columns, group)
        zero = None if zero is None else _repeated(zero, times, columns, group)
        return Weight(
            int4.pack(q), bias, Layout.INT4, int4.pack_scales(scale, group, columns),
            scale_columns=group, order=order, shape=(n, inputs),
            zero=None if zero is None else int4.pack_scales(zero, group, columns),
        )  # fmt: skip
    if scale.shape[1] == 1:  # a scale a row, as kernels have it
        scale = scale.float()
    return Weight(
        interleave(q), bias, Layout.INT8, scale.contiguous(), scale_columns=numbers.group,
        zero=zero, order=order, shape=(n, inputs),
    )  # fmt: skip


def _zero(part: Integers) -> Tensor:
    if part.zero is not None:
        return part.zero
    return torch.zeros(part.scale.shape, dtype=torch.int16, device=part.scale.device)


def _regrouped(part: Integers, group: int) -> Integers:
    """In smaller groups, each with the scale that it had."""
    if part.group == group:
        return part
    times, inputs = part.group // group, part.q.shape[1]
    zero = None if part.zero is None else _repeated(part.zero, times, inputs, group)
    scale = _repeated(part.scale, times, inputs, group)
    return replace(part, scale=scale, zero=zero, group=group)


def _repeated(scale: Tensor, times: int, inputs: int, group: int) -> Tensor:
    return scale.repeat_interleave(times, 1)[:, : -(-inputs // group)]


def _cut(whole: Integers, spec: MatrixSpec) -> Integers:
    columns = spec.columns
    if not spec.is_row_parallel:
        return whole
    granule = math.gcd(whole.group, columns.start, len(columns))
    if whole.scale.shape[1] == 1:  # one for the whole row, wherever it is cut
        granule, at = len(columns), torch.zeros(1, dtype=torch.int64, device=whole.q.device)
    else:
        starts = torch.arange(columns.start, columns.stop, granule, device=whole.q.device)
        at = starts // whole.group
    if granule < int4.LEAST_GROUP:
        raise ValueError(
            f"{spec.slices[-1].name} has {spec.inputs} inputs in groups of {whole.group}, which "
            f"cannot be cut into parts of {len(columns)}: choose another --num-shard"
        )
    return replace(
        whole,
        q=whole.q[:, columns.start : columns.stop],
        scale=whole.scale.index_select(1, at),
        zero=None if whole.zero is None else whole.zero.index_select(1, at),
        group=granule,
    )


def _in_groups(whole: Integers, spec: MatrixSpec) -> tuple[Integers, Tensor]:
    """The columns of each group side by side, and the inputs that they multiply: by the rank's own
    columns. A cut leaves groups of all sizes: those are filled up."""
    assert whole.group_of is not None
    device, columns = whole.q.device, spec.columns
    if device.type == "meta":  # about as large
        order = torch.empty(len(columns), dtype=torch.int64, device=device)
        return _cut(replace(whole, group_of=None), spec), order
    of = whole.group_of[columns.start : columns.stop]
    order = of.argsort(stable=True)
    counts = torch.bincount(of, minlength=whole.scale.shape[1])
    granule = math.gcd(*counts.tolist())
    if granule < GRANULE:
        granule = GRANULE
    sizes = (counts + granule - 1) // granule * granule
    first = sizes.cumsum(0) - sizes
    rank = torch.arange(len(columns), device=device)
    place = first[of[order]] + rank - (counts.cumsum(0) - counts)[of[order]]
    total = int(sizes.sum())
    q = torch.zeros(len(whole.q), total, dtype=torch.int8, device=device)
    if whole.zero is not None:  # what fills up must mean 0
        by_column = torch.arange(len(sizes), device=device).repeat_interleave(sizes)
        q += whole.zero.index_select(1, by_column)
    q[:, place] = whole.q[:, columns.start + order]
    inputs = torch.zeros(total, dtype=torch.int64, device=device)
    inputs[place] = order
    at = torch.arange(len(sizes), device=device).repeat_interleave(sizes // granule)
    cut = replace(
        whole,
        q=q,
        scale=whole.scale.index_select(1, at),
        zero=None if whole.zero is None else whole.zero.index_select(1, at),
        group=granule,
        group_of=None,
    )
    return cut, inputs
