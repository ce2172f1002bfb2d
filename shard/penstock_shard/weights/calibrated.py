"""GPTQ and AWQ of a whole model: every matrix of every block by what it multiplies over a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from penstock_kernels.ops import Norm, NormKind
from penstock_quantization.matrix import MatrixSpec
from penstock_quantization.offline.awq import Reader, best_scale, cut
from penstock_quantization.offline.gptq import gptq
from penstock_quantization.offline.groups import Grid, Quantised
from penstock_shard.model.architecture import Architecture
from penstock_shard.model.blocks import Block, Parallel
from penstock_shard.weights.calibration import Calibration
from penstock_shard.weights.parts import BlockParts, Part, parts_of


@dataclass(slots=True)
class Outcome:
    """What a checkpoint gets instead of what it had, by names."""

    matrices: dict[str, Quantised] = field(default_factory=dict)  # without ".weight"
    tensors: dict[str, Tensor] = field(default_factory=dict)
    rounded: int = 0  # matrices of experts that too few rows of the text took

    def add(self, spec: MatrixSpec, quantised: Quantised) -> None:
        """The rows of a joined matrix, to the tensors that they are of."""
        first = 0
        for part in spec.slices:
            rows = quantised.rows(slice(first, first + len(part.rows)))
            first += len(part.rows)
            if part.name not in self.matrices:
                q, scale, zero = (
                    x.new_empty(part.total, x.shape[1]) for x in (rows.q, rows.scale, rows.zero)
                )
                self.matrices[part.name] = Quantised(q, scale, zero, rows.bits)
            target = self.matrices[part.name].rows(slice(part.rows.start, part.rows.stop))
            for name in ("q", "scale", "zero"):
                getattr(target, name).copy_(getattr(rows, name))


def by_gptq(
    model: Architecture, text: Calibration, grid: Grid, done: Callable[[], object]
) -> Outcome:
    """done: called behind each layer."""
    outcome = Outcome()
    for index, block in text.blocks():
        for part in parts_of(model, index, block, text.inputs(block)).all():
            if is_known(part, grid):
                quantised = gptq(part.weight.data, part.inputs.hessian, grid)
            else:
                quantised = grid.nearest(part.weight.data.float())
                outcome.rounded += len(part.spec.slices)
            outcome.add(part.spec, quantised)
            part.put(quantised.meant())
        done()
    return outcome


def by_awq(
    model: Architecture, text: Calibration, grid: Grid, done: Callable[[], object]
) -> Outcome:
    """Scales go to the norm before matrices, and to the up rows of gated MLPs; attention's output
    has none, as heads share values. All that reads a norm has the same scale, experts and what
    chooses among them too. Raises ValueError for a family whose attention and MLP read the same
    norm."""
    outcome = Outcome()
    for index, block in text.blocks():
        if isinstance(block, Parallel):
            raise ValueError(f"awq of {model.name}, whose blocks are parallel, is not built")
        parts = parts_of(model, index, block, text.inputs(block))
        scales = _scaled_inside(parts, grid)
        prefix, names = model.family.names.block.format(index), model.family.names
        for readers, norm in (
            ([parts.qkv], "input_norm"),
            ([mlp.up for mlp in parts.mlps], "mlp_norm"),
        ):
            if getattr(block, norm) is None:
                continue
            scale = _scale_of_norm(block, norm, readers, grid)
            scales |= {id(part): scale for part in readers}
            outcome.tensors |= _stored(prefix + getattr(names, norm), getattr(block, norm))
            if norm == "mlp_norm":
                for name, weight in parts.beside.items():
                    weight.data.mul_(scale)
                    outcome.tensors[f"{name}.weight"] = weight.data
        for part in parts.all():
            quantised = _cut(part, scales.get(id(part)), grid)
            outcome.rounded += 0 if is_known(part, grid) else len(part.spec.slices)
            outcome.add(part.spec, quantised)
            part.put(quantised.meant())
        done()
    return outcome


def _scaled_inside(parts: BlockParts, grid: Grid) -> dict[int, Tensor]:
    """Scales of the second matrices of gated MLPs, by which rows of the first are divided."""
    scales = {}
    for mlp in parts.mlps:
        up, down = mlp.up.weight, mlp.down
        if not mlp.is_gated or up.bias is not None or not is_known(down, grid):
            continue
        found = best_scale([reader_of(down)], down.inputs.mean, grid)
        scales[id(down)] = found
        up.data[len(found) :] /= found[:, None]
    return scales


def _scale_of_norm(block: Block, norm: str, readers: list[Part], grid: Grid) -> Tensor:
    """What the columns of all that read it are multiplied with; the norm is divided by it."""
    known = [part for part in readers if is_known(part, grid)]
    count = max(1, sum(part.inputs.count for part in readers))
    mean = torch.stack([part.inputs.sizes for part in readers]).sum(0) / count
    scale = best_scale([reader_of(part) for part in known], mean, grid)
    setattr(block, norm, divided(getattr(block, norm), scale))
    return scale


def _cut(part: Part, scale: Tensor | None, grid: Grid) -> Quantised:
    weight = part.weight.data.float()
    if scale is None:
        scale = torch.ones(weight.shape[1], device=weight.device)
    if not is_known(part, grid):
        return grid.nearest(weight * scale)
    return cut(weight * scale, part.inputs.hessian / (scale[:, None] * scale), grid)


METHODS: Mapping[str, Callable[..., Outcome]] = {"gptq": by_gptq, "awq": by_awq}


def is_known(part: Part, grid: Grid) -> bool:
    """Whether enough rows went through a matrix to say how its columns go together: as many as a
    group has columns. Of experts that the text hardly takes, fewer may have."""
    return part.inputs.count >= grid.group


def reader_of(part: Part) -> Reader:
    return Reader(part.weight.data.float(), part.inputs.hessian)


def divided(norm: Norm, scale: Tensor) -> Norm:
    """A norm whose results are divided by scale [d]."""
    more = 1 if norm.kind is NormKind.RMS_ONE else 0  # what the weight counts from
    weight = (norm.weight.float() + more) / scale - more
    bias = None if norm.bias is None else (norm.bias.float() / scale).to(norm.bias.dtype)
    return replace(norm, weight=weight.to(norm.weight.dtype), bias=bias)


def _stored(name: str, norm: Norm) -> dict[str, Tensor]:
    found = {f"{name}.weight": norm.weight}
    return found if norm.bias is None else found | {f"{name}.bias": norm.bias}
