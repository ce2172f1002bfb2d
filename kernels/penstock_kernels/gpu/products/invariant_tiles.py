"""Which tile multiplies so many rows, where all tiles must come to the same bits.

Sums are made in the same order in all of them, but for the order within an instruction of the
tensor cores, which its shape might change. So tiles are tried on the card before they are used; one
that does not agree with the reference is replaced by it. On an H200 all do, though narrow ones take
other instructions than wide ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penstock_kernels.gpu.launch.ahead import compile_only
from penstock_kernels.gpu.launch.card import has_tensor_cores, shared_bytes
from penstock_kernels.gpu.products.invariant_linear import Tile, invariant_linear
from penstock_kernels.gpu.products.problem import MANY
from penstock_kernels.weight import Weight


@dataclass(frozen=True, slots=True)
class Rule:
    """The tile for up to so many rows and from so many outputs on."""

    rows: int
    outputs: int
    tile: Tile


Rules = tuple[Rule, ...]  # the first that fits counts; the last fits everything

REFERENCE = Tile(64, 64, 64, 4, 4)
FEW, SOME = Tile(64, 16, 128, 4, 4), Tile(64, 32, 128, 4, 4)
TALL, LARGE, LARGEST = Tile(128, 64, 64, 4, 4), Tile(128, 128, 64, 8, 3), Tile(128, 256, 64, 8, 3)
MANY_OUTPUTS = 16384  # fill a card whatever the tile
# What was fastest for products of Llama-3.1-8B on an H200 (benchmarks/kernels/deterministic.py).
HALF: Rules = (
    Rule(16, 0, FEW),
    Rule(32, 0, SOME),
    Rule(64, MANY_OUTPUTS, TALL),
    Rule(64, 0, SOME),
    Rule(256, MANY_OUTPUTS, LARGE),
    Rule(256, 0, REFERENCE),
    Rule(1024, 0, LARGE),
    Rule(MANY, 0, LARGEST),
)
# With scales of blocks: of one depth.
GROUPED: Rules = (Rule(64, 0, REFERENCE), Rule(MANY, 0, LARGE))
WITHOUT = Tile(64, 16, 32, 4, 2)  # tensor cores, and in float32: not measured
PLAIN: Rules = (Rule(MANY, 0, WITHOUT),)
PROBED = 128  # rows


def tile_of(rules: Rules, rows: int, outputs: int) -> Tile:
    """The tile of a product."""
    return next(rule.tile for rule in rules if rows <= rule.rows and outputs >= rule.outputs)


def agreed_rules(device: torch.device, dtype: torch.dtype) -> tuple[Rules, Rules]:
    """`HALF` and `GROUPED` with the tiles that agree on a card, for rows of a dtype.

    Raises ValueError where even one tile gives equal rows different bits.
    """
    rules, grouped, reference = rules_of(device, dtype)
    x, weight = probe(device, dtype)
    tiles = list(dict.fromkeys(rule.tile for rule in (*rules, *grouped)))
    if device.type == "cuda":
        with compile_only():
            for tile in (reference, *tiles):
                invariant_linear(x, weight, tile)
    row = invariant_linear(x, weight, reference)[:1]
    if not all_equal(x, weight, reference, row):
        raise ValueError(
            f"`deterministic` cannot be kept with `device` {device.type} here: equal rows of a "
            "product differ with their places"
        )
    agreed = {tile: tile for tile in tiles if all_equal(x, weight, tile, row)}

    def tried(rules: Rules) -> Rules:
        return tuple(replace(rule, tile=agreed.get(rule.tile, reference)) for rule in rules)

    return tried(rules), tried(grouped)


def rules_of(device: torch.device, dtype: torch.dtype) -> tuple[Rules, Rules, Tile]:
    """`HALF`, `GROUPED` and the reference, as far as a card has memory; nothing is tried."""
    rules, grouped, reference = HALF, GROUPED, REFERENCE
    if dtype == torch.float32 or not has_tensor_cores(device):
        rules, grouped, reference = PLAIN, PLAIN, WITHOUT
    return _fitting(rules, device), _fitting(grouped, device), _staged(reference, device)


def _fitting(rules: Rules, device: torch.device) -> Rules:
    return tuple(replace(rule, tile=_staged(rule.tile, device)) for rule in rules)


def _staged(tile: Tile, device: torch.device) -> Tile:
    """With as many stages as fit into shared memory: they change no bit."""
    stage = (tile.n + tile.rows) * tile.k * 2  # bytes
    return replace(tile, stages=max(1, min(tile.stages, shared_bytes(device) // stage)))


def all_equal(x: Tensor, weight: Weight, tile: Tile, row: Tensor) -> bool:
    """Whether every row of the product of equal rows is this one, bit for bit."""
    found = invariant_linear(x, weight, tile)
    return torch.equal(found, row.expand_as(found))


def probe(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Weight]:
    """Equal rows, and a matrix whose products with them cancel out: what is compared are rounding
    errors, and other orders make others."""
    random = torch.Generator().manual_seed(0)
    n = half = 256
    order = torch.randperm(2 * half, generator=random)

    def wide(*size: int) -> Tensor:
        numbers = torch.randn(*size, generator=random)
        return numbers * torch.randint(-3, 4, size, generator=random).exp2()

    left, right = wide(half), wide(n, half)
    row = torch.cat((left, -left))[order].to(device, dtype)
    matrix = torch.cat((right, right), dim=1)[:, order].to(device, dtype).contiguous()
    return row.expand(PROBED, -1).contiguous(), Weight(matrix)
