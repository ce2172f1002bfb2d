"""GPTQ and AWQ of a whole model: every matrix of every block by what it multiplies over a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from penstock_kernels.ops import Norm, NormKind
from penstock_kernels.weight import Weight
from penstock_quantization.matrix import MatrixSpec
from penstock_quantization.offline.awq import best_scale, cut
from penstock_quantization.offline.gptq import gptq
from penstock_quantization.offline.groups import Grid, Quantised
from penstock_shard.model.architecture import Architecture
from penstock_shard.model.blocks import Block, Parallel
from penstock_shard.model.layers import Mlp
from penstock_shard.model.matrices import BlockMatrices
from penstock_shard.ranks.parallel import Group, Partition
from penstock_shard.weights.calibration import Calibration


@dataclass(slots=True)
class Outcome:
    """What a checkpoint gets instead of what it had, by names."""

    matrices: dict[str, Quantised] = field(default_factory=dict)  # without ".weight"
    tensors: dict[str, Tensor] = field(default_factory=dict)

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


def _specs(model: Architecture, layer: int) -> dict[str, MatrixSpec]:
    """Of a block's matrices, by kind."""
    matrices = BlockMatrices(model, Partition.of(model, Group(0, 1)))
    prefix = model.family.names.block.format(layer)
    kinds = ("qkv", "output", "up", "down")
    return {kind: getattr(matrices, kind)(prefix) for kind in kinds}


def matrices_of(model: Architecture) -> set[str]:
    """Names of all matrices of the blocks, without ".weight", but for those by which rows choose
    among experts.

    Raises ValueError for a family that stores them [inputs, outputs]: no format has that.
    """
    if model.family.transposed:
        raise ValueError(f"{model.name} stores matrices [inputs, outputs], which no format has")
    specs = (_all_specs(model, layer) for layer in range(model.num_layers))
    return {part.name for matrices in specs for one in matrices for part in one.slices}


def choosing(model: Architecture) -> list[str]:
    """Names of the matrices by which rows choose among experts: they are small, and stay."""
    names, shape = model.family.names, model.experts
    if shape is None:
        return []
    gates = [names.router] if shape.shared is None else [names.router, names.shared_gate]
    return [
        names.block.format(layer) + gate
        for layer in range(model.num_layers)
        if shape.layers[layer]
        for gate in gates
    ]


def _all_specs(model: Architecture, layer: int) -> Iterator[MatrixSpec]:
    if not model.has_experts(layer):
        yield from _specs(model, layer).values()
        return
    matrices = BlockMatrices(model, Partition.of(model, Group(0, 1)))
    prefix, shape = model.family.names.block.format(layer), model.experts
    assert shape is not None
    places = [matrices.expert(index) for index in range(shape.count)]
    places += [] if shape.shared is None else [matrices.shared]
    yield from (matrices.qkv(prefix), matrices.output(prefix))
    for place in places:
        yield from (matrices.up(prefix, place), matrices.down(prefix, place))


def by_gptq(
    model: Architecture, text: Calibration, grid: Grid, done: Callable[[], None]
) -> Outcome:
    """done: called behind each layer."""
    outcome = Outcome()
    for index, block in text.blocks():
        specs, inputs = _specs(model, index), text.inputs(block)
        for kind, weight in weights_of(block).items():
            quantised = gptq(weight.data, inputs(weight).hessian, grid)
            outcome.add(specs[kind], quantised)
            put(block, kind, quantised.meant())
        done()
    return outcome


def by_awq(model: Architecture, text: Calibration, grid: Grid, done: Callable[[], None]) -> Outcome:
    """Scales go to the norm before a matrix, and to the up rows of a gated MLP; attention's output
    has none, as heads share values. Raises ValueError for a family whose attention and MLP read the
    same norm."""
    outcome = Outcome()
    for index, block in text.blocks():
        if isinstance(block, Parallel):
            raise ValueError(f"awq of {model.name}, whose blocks are parallel, is not built")
        specs, inputs = _specs(model, index), text.inputs(block)
        seen = {kind: inputs(weight) for kind, weight in weights_of(block).items()}
        weights = {kind: weight.data.float() for kind, weight in weights_of(block).items()}
        prefix, names = model.family.names.block.format(index), model.family.names
        scales: dict[str, Tensor] = {}
        if (mlp := mlp_of(block)).is_gated and mlp.up.bias is None:
            found = best_scale(weights["down"], seen["down"].hessian, seen["down"].mean, grid)
            scales["down"] = found
            weights["up"][len(found) :] /= found[:, None]
        for kind, part in (("qkv", "input_norm"), ("up", "mlp_norm")):
            norm, name = getattr(block, part), getattr(names, part)
            if norm is None:
                continue
            scale = best_scale(weights[kind], seen[kind].hessian, seen[kind].mean, grid)
            setattr(block, part, divided(norm, scale))
            scales[kind] = scale
            outcome.tensors |= _stored(prefix + name, getattr(block, part))
        for kind, weight in weights.items():
            one = scales.get(kind, torch.ones(weight.shape[1], device=weight.device))
            hessian = seen[kind].hessian / (one[:, None] * one)
            quantised = cut(weight * one, hessian, grid)
            outcome.add(specs[kind], quantised)
            put(block, kind, quantised.meant())
        done()
    return outcome


METHODS: Mapping[str, Callable[..., Outcome]] = {"gptq": by_gptq, "awq": by_awq}


def divided(norm: Norm, scale: Tensor) -> Norm:
    """A norm whose results are divided by scale [d]."""
    more = 1 if norm.kind is NormKind.RMS_ONE else 0  # what the weight counts from
    weight = (norm.weight.float() + more) / scale - more
    bias = None if norm.bias is None else (norm.bias.float() / scale).to(norm.bias.dtype)
    return replace(norm, weight=weight.to(norm.weight.dtype), bias=bias)


def _stored(name: str, norm: Norm) -> dict[str, Tensor]:
    found = {f"{name}.weight": norm.weight}
    return found if norm.bias is None else found | {f"{name}.bias": norm.bias}


def mlp_of(block: Block) -> Mlp:
    """Of a block without experts: `quantize` calibrates no model that has some."""
    assert isinstance(block.mlp, Mlp)
    return block.mlp


def weights_of(block: Block) -> dict[str, Weight]:
    """By kind."""
    return {
        "qkv": block.attention.qkv,
        "output": block.attention.output.weight,
        "up": mlp_of(block).up,
        "down": mlp_of(block).down.weight,
    }


def put(block: Block, kind: str, data: Tensor) -> None:
    """Another matrix in a block's place, with the bias of the one before."""
    before = weights_of(block)[kind]
    weight = Weight(data.to(before.data.dtype), before.bias)
    if kind == "qkv":
        block.attention.qkv = weight
    elif kind == "output":
        block.attention.output.weight = weight
    elif kind == "up":
        mlp_of(block).up = weight
    else:
        mlp_of(block).down.weight = weight
