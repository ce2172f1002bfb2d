"""The matrices of a block that are quantised: what they are called, where they stand, and what they
multiplied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from penstock_kernels.weight import Weight
from penstock_quantization.matrix import MatrixSpec
from penstock_shard.model.architecture import Architecture
from penstock_shard.model.blocks import Block
from penstock_shard.model.layers import MixtureOfExperts, Mlp
from penstock_shard.model.matrices import BlockMatrices, MlpPlace
from penstock_shard.ranks.parallel import Group, Partition
from penstock_shard.weights.calibration import Inputs, Seen


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A matrix."""

    spec: MatrixSpec
    weight: Weight  # dense; of an expert a view
    inputs: Inputs

    def put(self, data: Tensor) -> None:
        """Another one in its place."""
        self.weight.data.copy_(data)


@dataclass(frozen=True, slots=True)
class MlpParts:
    up: Part
    down: Part
    is_gated: bool


@dataclass(frozen=True, slots=True)
class BlockParts:
    """mlps: one, or those of all experts and the one beside them; beside: what reads the norm
    before those and stays as it is, by name."""

    qkv: Part
    output: Part
    mlps: list[MlpParts]
    beside: dict[str, Weight]

    def all(self) -> Iterator[Part]:
        """In the order in which a row passes them."""
        yield self.qkv
        yield self.output
        for mlp in self.mlps:
            yield mlp.up
            yield mlp.down


def parts_of(model: Architecture, layer: int, block: Block, seen: Seen) -> BlockParts:
    matrices, prefix = whole_matrices(model), model.family.names.block.format(layer)
    attention, names = block.attention, model.family.names
    output = attention.output.weight

    def mlp(place: MlpPlace, up: Weight, down: Weight, *inputs: Inputs) -> MlpParts:
        specs = matrices.up(prefix, place), matrices.down(prefix, place)
        first, second = map(Part, specs, (up, down), inputs)
        return MlpParts(first, second, len(place.up) == 2)

    def alone(place: MlpPlace, whole: Mlp) -> MlpParts:
        up, down = whole.up, whole.down.weight
        return mlp(place, up, down, seen.of(up), seen.of(down))

    mlps: list[MlpParts] = []
    beside: dict[str, Weight] = {}
    if isinstance(block.mlp, MixtureOfExperts):
        experts, shared = block.mlp.experts, block.mlp.shared
        beside[prefix + names.router] = block.mlp.router
        for index in range(experts.count):
            up, down = experts.up, experts.down
            inputs = seen.of(up, index), seen.of(down, index)
            mlps.append(mlp(matrices.expert(index), up[index], down[index], *inputs))
        if shared is not None:
            beside[prefix + names.shared_gate] = shared.gate
            mlps.append(alone(matrices.shared, shared.mlp))
    else:
        assert isinstance(block.mlp, Mlp)
        mlps.append(alone(matrices.mlp, block.mlp))
    return BlockParts(
        qkv=Part(matrices.qkv(prefix), attention.qkv, seen.of(attention.qkv)),
        output=Part(matrices.output(prefix), output, seen.of(output)),
        mlps=mlps,
        beside=beside,
    )


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
    matrices, shape = whole_matrices(model), model.experts
    prefix, places = model.family.names.block.format(layer), [matrices.mlp]
    if shape is not None and model.has_experts(layer):
        places = [matrices.expert(index) for index in range(shape.count)]
        places += [] if shape.shared is None else [matrices.shared]
    yield from (matrices.qkv(prefix), matrices.output(prefix))
    for place in places:
        yield from (matrices.up(prefix, place), matrices.down(prefix, place))


def whole_matrices(model: Architecture) -> BlockMatrices:
    """Of one rank, which has all."""
    return BlockMatrices(model, Partition.of(model, Group(0, 1)))
