"""Fills a decoder with this rank's share of the weights, under the names that `families` gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penstock_kernels.experts import Experts
from penstock_kernels.ops import AS_MODEL, Act, AttentionSpec, CacheSpec, Norm, NormKind, QKNorm
from penstock_kernels.weight import Weight
from penstock_quantization.kv_scales import ENDS, kv_scales
from penstock_shard.memory.kv_cache import total_bytes
from penstock_shard.model.architecture import Architecture
from penstock_shard.model.blocks import Block, Parallel, Sandwich, Sequential
from penstock_shard.model.decoder import Decoder
from penstock_shard.model.layers import (
    Attention,
    FeedForward,
    MixtureOfExperts,
    Mlp,
    Shared,
    VocabularyEmbedding,
    VocabularyHead,
)
from penstock_shard.model.matrices import BlockMatrices, MlpPlace
from penstock_shard.ranks.parallel import Group, Partition
from penstock_shard.weights.checkpoint import Rehearsal, Weights
from penstock_shard.weights.fp8_rows import check_any
from penstock_shard.weights.matrix_loader import MatrixLoader

BLOCKS: dict[str, Callable[..., Block]] = {
    "sequential": Sequential,
    "sandwich": Sandwich,
    "parallel": Parallel,
}


@dataclass(frozen=True, slots=True)
class _Loader(MatrixLoader):
    cache: str | None  # type of the KV cache; None: dtype

    def decoder(self) -> Decoder:
        model, vocabulary, names = self.model, self.partition.vocabulary, self.model.family.names
        shape = (model.vocab_size, model.hidden_size)
        table = self._slice(f"{names.embedding}.weight", shape, 0, vocabulary)
        blocks = [self._block(index) for index in range(model.num_layers)]
        norm = self._norm(names.norm, model.hidden_size)
        head = table
        if not model.tied_embeddings:
            head = self._slice(f"{names.head}.weight", shape, 0, vocabulary)
        bias = None
        if model.family.head_bias:
            bias = self._vector(f"{names.head}.bias", model.vocab_size, vocabulary)
        embedding = self._embedding(table)
        self.weights.finish(self._ignored())
        return Decoder(
            embedding=embedding,
            blocks=blocks,
            norm=norm,
            head=VocabularyHead(
                Weight(head, bias), model.vocab_size, self.group, model.logit_cap, model.logit_scale
            ),
            ropes=tuple((rope, model.rotary or model.head_dim) for rope in model.ropes),
        )

    def _ignored(self) -> Callable[[str], bool]:
        """Tensors that may be there although nobody needs them."""
        tied, scheme = f"{self.model.family.names.head}.weight", self.model.scheme
        unread = ENDS if scheme is None else (*scheme.unread, *ENDS)
        return lambda name: (self.model.tied_embeddings and name == tied) or name.endswith(unread)

    def _embedding(self, table: Tensor) -> VocabularyEmbedding:
        model, start = self.model, self.partition.vocabulary.start
        scale = model.embedding_scale
        if model.family.scaled_embedding:
            scale = float(torch.tensor(scale, dtype=self.dtype))  # rounded as trained
        learned = None
        if (name := model.family.names.positions) is not None:
            first = model.family.first_position
            shape = (first + model.max_positions, model.hidden_size)
            learned = self._slice(f"{name}.weight", shape, 0, range(first, shape[0]))
        return VocabularyEmbedding(table, start, self.group, scale, learned)

    def _block(self, index: int) -> Block:
        model, names = self.model, self.model.family.names
        prefix = names.block.format(index)
        norms = {"input_norm": names.input_norm, "mlp_norm": names.mlp_norm}
        if model.family.block == "sandwich":
            norms |= {"attention_norm": names.attention_norm, "output_norm": names.output_norm}
        return BLOCKS[model.family.block](
            attention=self._attention(prefix, index),
            mlp=self._feed_forward(prefix, index),
            **{
                part: None if name is None else self._norm(prefix + name, model.hidden_size)
                for part, name in norms.items()
            },
        )

    def _attention(self, prefix: str, layer: int) -> Attention:
        model, partition = self.model, self.partition
        spec = AttentionSpec(
            heads=len(partition.heads),
            kv_heads=len(partition.kv_heads),
            width=model.head_dim,
            scale=model.scale,
            window=model.windows[layer],
            rope=model.rope_of(layer),
            rotary=model.rotary,
            interleaved=model.family.interleaved,
            soft_cap=model.attention_cap,
            cache=self._cache_spec(prefix),
        )
        return Attention(
            spec=spec,
            qkv=self.columns(self._matrices.qkv(prefix)),
            norm=self._qk_norm(prefix),
            output=self.rows(self._matrices.output(prefix)),
            sinks=self._sinks(prefix),
        )

    def _sinks(self, prefix: str) -> Tensor | None:
        """In float32, as scores are."""
        if (name := self.model.family.names.sinks) is None:
            return None
        heads = self.partition.heads
        into = torch.empty(len(heads), dtype=torch.float32, device=self.device)
        self.weights.read(into, prefix + name, (self.model.num_heads,), 0, heads.start)
        return into

    def _qk_norm(self, prefix: str) -> QKNorm | None:
        model, partition, width = self.model, self.partition, self.model.head_dim
        query, key = (prefix + name for name in model.family.names.qk_norms)
        match model.qk_norm:
            case None:
                return None
            case "head":
                return QKNorm(self._norm(query, width), self._norm(key, width))
            case "joint":
                # Ranks hold as many heads each: the mean over all is that of the ranks' means,
                # also where several hold the same KV head.
                return QKNorm(
                    self._norm(query, model.num_heads * width, _wide(partition.heads, width)),
                    self._norm(key, model.num_kv_heads * width, _wide(partition.kv_heads, width)),
                    self.group.mean,
                )

    def _cache_spec(self, prefix: str) -> CacheSpec:
        if self.cache is None:
            return AS_MODEL
        module = (prefix + self.model.family.names.qkv[0]).rpartition(".")[0]
        return CacheSpec(getattr(torch, self.cache), *kv_scales(self.weights, module))

    def _feed_forward(self, prefix: str, layer: int) -> FeedForward:
        if self.model.has_experts(layer):
            return self._experts(prefix)
        return self._mlp(prefix, self._matrices.mlp)

    def _mlp(self, prefix: str, place: MlpPlace) -> Mlp:
        return Mlp(
            up=self.columns(self._matrices.up(prefix, place)),
            down=self.rows(self._matrices.down(prefix, place)),
            act=Act(self.model.act),
            is_gated=len(place.up) == 2,
        )

    def _experts(self, prefix: str) -> MixtureOfExperts:
        """The router stays as the checkpoint has it, whatever `--quantize` says: it is small. The
        experts' kernels read rows as they are."""
        shape, keys = self.model.experts, self.model.family.experts
        assert shape is not None and keys is not None
        read, matrices = replace(self, fp8_rows=False), self._matrices
        shared = None
        if shape.shared is not None:
            gate = read.dense(matrices.shared_gate(prefix))
            shared = Shared(self._mlp(prefix, matrices.shared), gate)
        if keys.stacked:
            up, down = read.joined_experts(prefix)
        else:
            places = [matrices.expert(index) for index in range(shape.count)]
            up = read.stacked([matrices.up(prefix, place) for place in places], read.columns)
            down = read.stacked([matrices.down(prefix, place) for place in places], read.partial)
        act = Act(keys.act or self.model.act)
        return MixtureOfExperts(
            router=read.dense(matrices.router(prefix)),
            experts=Experts(up, down, act, shape.top, shape.normalised),
            shared=shared,
            group=self.group,
        )

    @property
    def _matrices(self) -> BlockMatrices:
        return BlockMatrices(self.model, self.partition)

    def _norm(self, name: str, size: int, part: range | None = None) -> Norm:
        kind, bias = NormKind(self.model.family.norm), None
        if kind is NormKind.LAYER:
            there = self.model.family.norm_bias
            bias = self._vector(f"{name}.bias", size, part) if there else self._zeros(size)
        return Norm(self._vector(f"{name}.weight", size, part), self.model.norm_eps, kind, bias)

    def _slice(self, name: str, shape: tuple[int, int], dim: int, part: range) -> Tensor:
        local = [*shape]
        local[dim] = len(part)
        into = self._empty(*local)
        self.weights.read(into, name, shape, dim, part.start)
        return into

    def _vector(self, name: str, size: int, part: range | None) -> Tensor:
        part = part or range(size)
        into = self._empty(len(part))
        self.weights.read(into, name, (size,), 0, part.start)
        return into

    def _zeros(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=self.dtype, device=self.device)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)


def load_decoder(
    model: Architecture,
    group: Group,
    weights: Weights,
    dtype: torch.dtype,
    device: torch.device,
    quantize: str | None = None,
    cache: str | None = None,
    fp8_rows: bool = False,
) -> Decoder:
    """This rank's share of a model, quantised as `--quantize` says. cache: type of the KV cache,
    by torch's name; None: dtype. fp8_rows: whether 4-bit weights are multiplied with rows in FP8.

    Before anything is allocated all of it is made once without memory. Raises ValueError for
    weights that do not fit config.json, and for a model that no memory of the device holds.
    """
    needed = device_bytes(model, group, weights, dtype, quantize, cache, fp8_rows)
    check_memory(needed, device, group.world_size)
    partition = Partition.of(model, group)
    try:
        decoder = _Loader(
            model, group, partition, weights, dtype, device, quantize, fp8_rows, cache
        ).decoder()
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"this shard's weights do not fit beside what else uses {device}: {error}"
        ) from None
    if fp8_rows:
        check_any(decoder)
    return decoder


def device_bytes(
    model: Architecture,
    group: Group,
    weights: Weights,
    dtype: torch.dtype,
    quantize: str | None = None,
    cache: str | None = None,
    fp8_rows: bool = False,
) -> int:
    """What this rank's share takes on a GPU. Raises ValueError as `load_decoder` does."""
    partition, meta = Partition.of(model, group), torch.device("meta")
    loader = _Loader(
        model, group, partition, Rehearsal(weights), dtype, meta, quantize, fp8_rows, cache
    )
    return loader.decoder().nbytes


def check_memory(needed: int, device: torch.device, world_size: int) -> None:
    """Raises ValueError where a rank's weights exceed all the memory there is for it."""
    total = total_bytes(device, world_size)
    if needed > total:
        raise ValueError(
            f"this shard's weights take {needed / 1e9:.1f} GB, but {device} has "
            f"{total / 1e9:.1f} GB for it: a smaller --dtype, more shards (--num-shard), or "
            "numbers in config.json that are wrong"
        )


def _wide(heads: range, width: int) -> range:
    """The elements of some heads."""
    return range(heads.start * width, heads.stop * width)
