"""What the matrices of a model multiply, over a text: layer after layer, by the model itself.

Each layer sees what the layers before it make once they are quantised, so that it can make good
what they lose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.ops import Act, Activation, AttentionSpec, Norm, QKNorm, Step, StepBatch
from penstock_kernels.ops import EagerPlan as Plan
from penstock_kernels.reference.activation import gate
from penstock_kernels.reference.device import TorchDevice
from penstock_kernels.reference.experts import taken
from penstock_kernels.stacked import Stacked
from penstock_kernels.weight import Weight
from penstock_shard.model.blocks import Block, Following
from penstock_shard.model.decoder import Decoder

BLOCK_SIZE = 64  # tokens of a block of the cache
ROWS = 4096  # of a step, about


@dataclass(slots=True)
class Inputs:
    """What a matrix multiplied: sums over rows x."""

    hessian: Tensor  # [k, k], of x x^T
    sizes: Tensor  # [k], of |x|
    count: int = 0

    def add(self, x: Tensor) -> None:
        x = x.float()
        self.hessian.addmm_(x.T, x)
        self.sizes += x.abs().sum(0)
        self.count += len(x)

    @property
    def mean(self) -> Tensor:
        return self.sizes / max(self.count, 1)


@dataclass(slots=True)
class Seen:
    """What the matrices of a layer multiplied."""

    found: dict[tuple[int, int], Inputs] = field(default_factory=dict)

    def of(self, weight: Weight | Stacked, index: int = 0) -> Inputs:
        """index: of an expert."""
        key = id(weight), index
        if key not in self.found:
            device = weight.parts.device if isinstance(weight, Stacked) else weight.device
            zeros = torch.zeros(weight.k, weight.k, device=device)
            self.found[key] = Inputs(zeros, zeros.new_zeros(weight.k))
        return self.found[key]


class Recorder:
    """A step that keeps what its products read, by weight."""

    def __init__(self, step: Step, seen: Seen) -> None:
        self._step, self._seen = step, seen

    def norm(self, x: Tensor, norm: Norm | None, to: Weight | None = None) -> Activation:
        return self._step.norm(x, norm, to)

    def add_norm(
        self, x: Tensor, residual: Tensor, norm: Norm | None, to: Weight | None = None
    ) -> Activation:
        return self._step.add_norm(x, residual, norm, to)

    def linear(self, x: Activation, weight: Weight) -> Tensor:
        return self._step.linear(self._kept(x, weight), weight)

    def linear_add_norm(
        self,
        x: Activation,
        weight: Weight,
        residual: Tensor,
        norm: Norm | None,
        to: Weight | None = None,
    ) -> Activation:
        return self._step.linear_add_norm(self._kept(x, weight), weight, residual, norm, to)

    def each(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return self._step.each(function, x)

    def gated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        return self._step.gated(self._kept(x, weight), weight, act, to)

    def activated(
        self, x: Activation, weight: Weight, act: Act, to: Weight | None = None
    ) -> Activation:
        return self._step.activated(self._kept(x, weight), weight, act, to)

    def experts(self, x: Activation, router: Weight, experts: Experts) -> Tensor:
        """Of each expert, what the rows that take it give it."""
        logits = self._step.linear(x, router)
        for index, row, _ in taken(logits, experts):
            rows, up = x.x[row], experts.up[index]
            self._seen.of(experts.up, index).add(rows)
            inner = gate(F.linear(rows, up.data, up.bias), experts.act)
            self._seen.of(experts.down, index).add(inner)
        return self._step.experts(x, router, experts)

    def qkv(
        self,
        x: Activation,
        weight: Weight,
        spec: AttentionSpec,
        cache: Tensor,
        norm: QKNorm | None = None,
    ) -> Tensor:
        return self._step.qkv(self._kept(x, weight), weight, spec, cache, norm)

    def attend(
        self,
        query: Tensor,
        spec: AttentionSpec,
        cache: Tensor,
        to: Weight | None = None,
        sinks: Tensor | None = None,
    ) -> Activation:
        return self._step.attend(query, spec, cache, to, sinks)

    def _kept(self, x: Activation, weight: Weight) -> Activation:
        self._seen.of(weight).add(x.x)
        return x


class Calibration:
    """The hidden states of a text, on their way through a decoder.

    sequences: [count, length] int64, tokens.
    """

    def __init__(self, decoder: Decoder, sequences: Tensor) -> None:
        device, length = decoder.embedding.table.device, sequences.shape[1]
        self._decoder, self._length = decoder, length
        self._ops = TorchDevice(decoder.rope_tables(length, device), BLOCK_SIZE)
        together = max(1, ROWS // length)
        self._batches = [part.to(device) for part in torch.split(sequences, together)]
        self._states = [self._embedded(tokens) for tokens in self._batches]
        spec, width = decoder.specs()[0], -(-length // BLOCK_SIZE)
        shape = (2, spec.kv_heads, together * width + 1, BLOCK_SIZE, spec.width)
        self._cache = torch.zeros(shape, dtype=decoder.embedding.table.dtype, device=device)

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Layer after layer; what became of one meanwhile is what the next one's inputs pass."""
        for index, block in enumerate(self._decoder.blocks):
            yield index, block
            self._states = list(self._through(block, None))

    def inputs(self, block: Block) -> Seen:
        """Of the matrices of the layer that `blocks` gave last."""
        seen = Seen()
        for _ in self._through(block, seen):
            pass
        return seen

    def logits(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Behind all layers: tokens [sequences, length] and their logits [rows, vocabulary]."""
        for tokens, state in zip(self._batches, self._states, strict=True):
            step = self._step(len(tokens))
            found = self._decoder.head(step.norm(state, self._decoder.norm), step)
            assert found is not None
            yield tokens, found

    @torch.inference_mode()
    def _through(self, block: Block, seen: Seen | None) -> Iterator[Tensor]:
        """What a layer makes of the states."""
        for tokens, state in zip(self._batches, self._states, strict=True):
            step = self._step(len(tokens))
            if seen is not None:
                step = Recorder(step, seen)
            following = Following(None, block.attention.qkv)
            x = step.norm(state, block.input_norm)
            _, out = block.forward(x, state.clone(), self._cache, following, step, None)
            yield out

    def _embedded(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(self._length, device=tokens.device).repeat(len(tokens))
        return self._decoder.embedding(tokens.flatten(), positions)

    def _step(self, count: int) -> Step:
        device, length = self._batches[0].device, self._length
        sequences = torch.arange(count, device=device)
        width = -(-length // BLOCK_SIZE)
        table = torch.arange(1, count * width + 1, dtype=torch.int32, device=device)
        batch = StepBatch(
            slot=sequences.repeat_interleave(length),
            position=torch.arange(length, device=device).repeat(count),
            block_table=table.view(count, width),
            decode_rows=0,
            plan=Plan(sequences, np.zeros(count, np.int64), np.full(count, length, np.int64)),
        )
        return self._ops.step(batch)
