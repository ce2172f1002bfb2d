"""Which numbers of which tensors make up each matrix of a block on one rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock_quantization.matrix import MatrixSpec, Slice
from penstock_shard.model.architecture import Architecture
from penstock_shard.ranks.parallel import Partition


@dataclass(frozen=True, slots=True)
class MlpPlace:
    """Where an MLP stands in a block, and this rank's part of it."""

    up: tuple[str, ...]
    down: str
    part: range  # of what is between its layers
    size: int


@dataclass(frozen=True, slots=True)
class BlockMatrices:
    """Those of the blocks of a model, as a family lays them out."""

    model: Architecture
    partition: Partition

    def qkv(self, prefix: str) -> MatrixSpec:
        """Queries, keys and values of this rank's heads."""
        model, width, names = self.model, self.model.head_dim, self.model.family.names
        sizes = (model.num_heads, model.num_kv_heads, model.num_kv_heads)
        places = stacked(names.qkv, sizes)
        if model.family.grouped_qkv:
            places = [(0, sum(sizes))] * 3
        slices = [
            Slice(prefix + name, range(run.start * width, run.stop * width), total * width)
            for name, heads, (offset, total) in zip(names.qkv, self._heads(), places, strict=True)
            for run in runs([offset + head for head in heads])
        ]
        return self._of(slices, range(model.hidden_size), model.hidden_size, model.qkv_bias)

    def output(self, prefix: str) -> MatrixSpec:
        """What attention adds, of this rank's heads."""
        model, width, heads = self.model, self.model.head_dim, self.partition.heads
        columns = range(heads.start * width, heads.stop * width)
        name = prefix + model.family.names.output
        return self._whole(name, columns, model.num_heads * width, model.output_bias)

    @property
    def mlp(self) -> MlpPlace:
        names = self.model.family.names
        return MlpPlace(names.up, names.down, self.partition.mlp, self.model.intermediate_size)

    def expert(self, index: int) -> MlpPlace:
        """One of the MLPs that rows choose among."""
        names, shape = self.model.family.names, self.model.experts
        assert shape is not None
        up = tuple(name.format(index) for name in names.expert_up)
        return MlpPlace(up, names.expert_down.format(index), self.partition.expert, shape.inner)

    @property
    def shared(self) -> MlpPlace:
        """The MLP beside them."""
        names, shape = self.model.family.names, self.model.experts
        assert shape is not None and shape.shared is not None
        return MlpPlace(names.shared_up, names.shared_down, self.partition.shared, shape.shared)

    def router(self, prefix: str) -> MatrixSpec:
        """The logits by which rows choose."""
        shape, keys = self.model.experts, self.model.family.experts
        assert shape is not None and keys is not None
        return self._rows_of(prefix + self.model.family.names.router, shape.count, keys.bias)

    def shared_gate(self, prefix: str) -> MatrixSpec:
        """How much of the MLP beside experts a row takes."""
        return self._rows_of(prefix + self.model.family.names.shared_gate, 1)

    def up(self, prefix: str, mlp: MlpPlace | None = None) -> MatrixSpec:
        """The MLP's first: its gate, if it has one, then up."""
        model, mlp = self.model, mlp or self.mlp
        places = stacked(mlp.up, [mlp.size] * len(mlp.up))
        slices = [
            Slice(prefix + name, range(offset + mlp.part.start, offset + mlp.part.stop), total)
            for name, (offset, total) in zip(mlp.up, places, strict=True)
        ]
        return self._of(slices, range(model.hidden_size), model.hidden_size, model.mlp_bias)

    def down(self, prefix: str, mlp: MlpPlace | None = None) -> MatrixSpec:
        """The MLP's second."""
        mlp = mlp or self.mlp
        return self._whole(prefix + mlp.down, mlp.part, mlp.size, self.model.mlp_bias)

    def _rows_of(self, name: str, rows: int, bias: bool = False) -> MatrixSpec:
        width = self.model.hidden_size
        return self._of([Slice(name, range(rows), rows)], range(width), width, bias)

    def _heads(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Where this rank's query, key and value heads stand, each among its kind, or among all."""
        heads, kv_heads = self.partition.heads, self.partition.kv_heads
        if not self.model.family.grouped_qkv:
            return heads, kv_heads, kv_heads
        share = self.model.num_heads // self.model.num_kv_heads
        return (
            [head // share * (share + 2) + head % share for head in heads],
            [head * (share + 2) + share for head in kv_heads],
            [head * (share + 2) + share + 1 for head in kv_heads],
        )

    def _whole(self, name: str, columns: range, inputs: int, bias: bool) -> MatrixSpec:
        outputs = self.model.hidden_size
        return self._of([Slice(name, range(outputs), outputs)], columns, inputs, bias)

    def _of(self, slices: Sequence[Slice], columns: range, inputs: int, bias: bool) -> MatrixSpec:
        return MatrixSpec(tuple(slices), columns, inputs, bias, self.model.family.transposed)


def stacked(names: Sequence[str], sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Where each part begins in its tensor, and how large that is: parts of one name follow one
    another."""
    total: dict[str, int] = {}
    offsets = []
    for name, size in zip(names, sizes, strict=True):
        offsets.append(total.get(name, 0))
        total[name] = offsets[-1] + size
    return [(offset, total[name]) for name, offset in zip(names, offsets, strict=True)]


def runs(numbers: Sequence[int]) -> Iterator[range]:
    """Rising numbers as few ranges."""
    start = 0
    for index in range(1, len(numbers) + 1):
        if index == len(numbers) or numbers[index] != numbers[index - 1] + 1:
            yield range(numbers[start], numbers[index - 1] + 1)
            start = index
