"""What models are made of beside plain products: layers that the ranks compute together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.ops import Act, Activation, AttentionSpec, Norm, QKNorm, Step
from penstock_kernels.weight import Weight
from penstock_shard.ranks.parallel import Group


@dataclass(slots=True)
class RowParallel:
    """x W^T + b where each rank holds some columns of W and of x: the products are summed."""

    weight: Weight  # [n, k / world_size]; the bias is that of rank 0 alone
    group: Group

    def __call__(self, x: Activation, step: Step) -> Tensor:
        """[n, outputs], the same on every rank."""
        return self.group.all_reduce(step.linear(x, self.weight))

    def add_norm(
        self, x: Activation, residual: Tensor, norm: Norm | None, to: Weight | None, step: Step
    ) -> Activation:
        """`Step.add_norm` of this product. residual: [n, outputs]."""
        if self.group.world_size == 1:
            return step.linear_add_norm(x, self.weight, residual, norm, to)
        return self.group.add_norm(step.linear(x, self.weight), residual, norm, to, step)


@dataclass(slots=True)
class Attention:
    """Self-attention of this rank's heads."""

    spec: AttentionSpec
    qkv: Weight  # queries, keys, values of the heads
    norm: QKNorm | None
    output: RowParallel
    sinks: Tensor | None = None  # [heads] float32, see `Step.attend`

    def __call__(self, x: Activation, cache: Tensor, step: Step) -> Activation:
        """What `output` reads: [n, heads * width]."""
        query = step.qkv(x, self.qkv, self.spec, cache, self.norm)
        return step.attend(query, self.spec, cache, self.output.weight, self.sinks)

    def tensors(self) -> Iterator[Tensor]:
        yield from self.qkv.tensors()
        yield from self.output.weight.tensors()
        if self.norm is not None:
            yield from (self.norm.query.weight, self.norm.key.weight)
        if self.sinks is not None:
            yield self.sinks


class FeedForward(Protocol):
    """What a block has beside attention: of each row by itself."""

    @property
    def reads(self) -> Weight:
        """What its input goes into first."""

    def __call__(self, x: Activation, step: Step) -> Tensor:
        """[n, hidden], the same on every rank."""

    def add_norm(
        self, x: Activation, residual: Tensor, norm: Norm | None, to: Weight | None, step: Step
    ) -> Activation:
        """`Step.add_norm` of it. residual: [n, hidden]."""

    def tensors(self) -> Iterator[Tensor]:
        """All parameters."""


@dataclass(slots=True)
class Mlp:
    """Two layers with an activation function between them, gated or not."""

    up: Weight  # the gate's rows before those of up, if gated
    down: RowParallel
    act: Act
    is_gated: bool

    @property
    def reads(self) -> Weight:
        return self.up

    def __call__(self, x: Activation, step: Step) -> Tensor:
        return self.down(self.inner(x, step), step)

    def add_norm(
        self, x: Activation, residual: Tensor, norm: Norm | None, to: Weight | None, step: Step
    ) -> Activation:
        return self.down.add_norm(self.inner(x, step), residual, norm, to, step)

    def inner(self, x: Activation, step: Step) -> Activation:
        """What `down` reads."""
        operation = step.gated if self.is_gated else step.activated
        return operation(x, self.up, self.act, self.down.weight)

    def tensors(self) -> Iterator[Tensor]:
        yield from self.up.tensors()
        yield from self.down.weight.tensors()


@dataclass(slots=True)
class Shared:
    """An MLP that every row takes beside its experts, as much of it as a gate says."""

    mlp: Mlp
    gate: Weight  # [1, hidden]

    def partial(self, x: Activation, step: Step) -> Tensor:
        """This rank's part of it: [n, hidden]."""
        y = step.linear(self.mlp.inner(x, step), self.mlp.down.weight)
        return y.mul_(step.each(torch.sigmoid, step.linear(x, self.gate)))


@dataclass(slots=True)
class MixtureOfExperts:
    """Each row takes the few of many MLPs that the router picks for it.

    Ranks hold a part of every expert, as they do of one MLP.
    """

    router: Weight  # [experts, hidden], the same on every rank
    experts: Experts
    shared: Shared | None
    group: Group

    @property
    def reads(self) -> Weight:
        return self.router

    def __call__(self, x: Activation, step: Step) -> Tensor:
        return self.group.all_reduce(self._partial(x, step))

    def add_norm(
        self, x: Activation, residual: Tensor, norm: Norm | None, to: Weight | None, step: Step
    ) -> Activation:
        return self.group.add_norm(self._partial(x, step), residual, norm, to, step)

    def _partial(self, x: Activation, step: Step) -> Tensor:
        y = step.experts(x, self.router, self.experts)
        return y if self.shared is None else y.add_(self.shared.partial(x, step))

    def tensors(self) -> Iterator[Tensor]:
        yield from self.router.tensors()
        yield from self.experts.tensors()
        if self.shared is not None:
            yield from self.shared.mlp.tensors()
            yield from self.shared.gate.tensors()


@dataclass(slots=True)
class VocabularyEmbedding:
    """Rows of the embedding table for this rank's part of the vocabulary."""

    table: Tensor  # [vocabulary / world_size, hidden]
    start: int
    group: Group
    scale: float = 1.0
    learned: Tensor | None = None  # [positions, hidden], added to the tokens' rows

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens, positions: [n] int64. Returns [n, hidden], the same on every rank."""
        x = self._look_up(tokens)
        if self.scale != 1.0:
            x = x.mul_(self.scale)
        if self.learned is not None:
            # Rows that nobody asked for may stand behind the last position.
            x += F.embedding(positions.clamp(max=len(self.learned) - 1), self.learned)
        return x

    def tensors(self) -> Iterator[Tensor]:
        yield self.table
        if self.learned is not None:
            yield self.learned

    def _look_up(self, tokens: Tensor) -> Tensor:
        if self.group.world_size == 1:
            return F.embedding(tokens, self.table)
        local = tokens - self.start
        foreign = (local < 0) | (local >= self.table.shape[0])
        out = F.embedding(local.masked_fill_(foreign, 0), self.table)
        return self.group.all_reduce(out.masked_fill_(foreign.unsqueeze(1), 0))


class ZeroEmbedding(VocabularyEmbedding):
    """Looks nothing up."""

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self.table.new_zeros(len(tokens), self.table.shape[1])


@dataclass(slots=True)
class VocabularyHead:
    """Logits: each rank computes its part of the vocabulary, rank 0 gets them all."""

    weight: Weight  # [vocabulary / world_size, hidden]
    vocab_size: int
    group: Group
    soft_cap: float | None = None  # logits are kept within it, by tanh
    scale: float = 1.0  # of the logits

    @property
    def part(self) -> range:
        """The columns of the logits that this rank computes; the last ranks may have fewer."""
        columns = self.weight.n
        start = columns * self.group.rank
        return range(start, min(start + columns, self.vocab_size))

    def local(self, hidden: Activation, step: Step) -> Tensor:
        """This rank's columns of the logits, padding included: [n, vocabulary / world_size]."""
        logits = step.linear(hidden, self.weight)
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        if self.soft_cap is None:
            return logits
        return step.each(torch.tanh_, logits.div_(self.soft_cap)).mul_(self.soft_cap)

    def __call__(self, hidden: Activation, step: Step) -> Tensor | None:
        """hidden: [n, hidden]. Returns [n, vocab_size] on rank 0, None elsewhere."""
        logits = self.group.gather_columns(self.local(hidden, step))
        return None if logits is None else logits[:, : self.vocab_size]
