"""Fills a decoder with this rank's share of the weights, under their Hugging Face names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_kernels.ops import Act, AttentionSpec, Norm, QKNorm
from penstock_kernels.weight import Weight
from penstock_quantization.online import ONLINE
from penstock_shard.architecture import Architecture
from penstock_shard.kv_cache import total_bytes
from penstock_shard.model.blocks import Block, Sequential
from penstock_shard.model.decoder import Decoder
from penstock_shard.model.layers import (
    Attention,
    Mlp,
    RowParallel,
    VocabularyEmbedding,
    VocabularyHead,
)
from penstock_shard.parallel import Group, Partition
from penstock_shard.weights import Rehearsal, Weights


@dataclass(frozen=True, slots=True)
class _Slice:
    """Some output rows of a joined matrix: `rows` of the `total` rows of the tensor `name`."""

    name: str
    rows: range
    total: int


@dataclass(frozen=True, slots=True)
class _Loader:
    model: Architecture
    group: Group
    partition: Partition
    weights: Weights
    dtype: torch.dtype
    device: torch.device
    quantize: str | None

    def decoder(self) -> Decoder:
        model, vocabulary = self.model, self.partition.vocabulary
        shape = (model.vocab_size, model.hidden_size)
        embedding = self._slice("model.embed_tokens.weight", shape, 0, vocabulary)
        blocks = [self._block(index) for index in range(model.num_layers)]
        norm = self._norm("model.norm", model.hidden_size)
        head = embedding
        if not model.tied_embeddings:
            head = self._slice("lm_head.weight", shape, 0, vocabulary)
        self.weights.finish(frozenset({"lm_head.weight"} if model.tied_embeddings else ()))
        return Decoder(
            embedding=VocabularyEmbedding(embedding, vocabulary.start, self.group),
            blocks=blocks,
            norm=norm,
            head=VocabularyHead(Weight(head), model.vocab_size, self.group),
            ropes=((model.rope, model.head_dim),),
        )

    def _block(self, index: int) -> Block:
        model, prefix = self.model, f"model.layers.{index}"
        return Sequential(
            input_norm=self._norm(f"{prefix}.input_layernorm", model.hidden_size),
            attention=self._attention(f"{prefix}.self_attn", model.windows[index]),
            mlp_norm=self._norm(f"{prefix}.post_attention_layernorm", model.hidden_size),
            mlp=self._mlp(f"{prefix}.mlp"),
        )

    def _attention(self, prefix: str, window: int | None) -> Attention:
        model, partition, width = self.model, self.partition, self.model.head_dim
        spec = AttentionSpec(
            heads=len(partition.heads),
            kv_heads=len(partition.kv_heads),
            width=width,
            scale=width**-0.5,
            window=window,
        )
        norm = None
        if model.qk_norm:
            query, key = (self._norm(f"{prefix}.{name}_norm", width) for name in "qk")
            norm = QKNorm(query, key)
        heads, kv_heads = _scaled(partition.heads, width), _scaled(partition.kv_heads, width)
        slices = [
            _Slice(f"{prefix}.q_proj", heads, model.num_heads * width),
            _Slice(f"{prefix}.k_proj", kv_heads, model.num_kv_heads * width),
            _Slice(f"{prefix}.v_proj", kv_heads, model.num_kv_heads * width),
        ]
        shape = (model.hidden_size, model.num_heads * width)
        return Attention(
            spec=spec,
            qkv=self._columns(slices, model.hidden_size, model.qkv_bias),
            norm=norm,
            output=self._rows(f"{prefix}.o_proj", shape, heads, model.output_bias),
        )

    def _mlp(self, prefix: str) -> Mlp:
        model, hidden, width = self.model, self.model.hidden_size, self.model.intermediate_size
        slices = [
            _Slice(f"{prefix}.{name}", self.partition.mlp, width)
            for name in ("gate_proj", "up_proj")
        ]
        return Mlp(
            up=self._columns(slices, hidden, model.mlp_bias),
            down=self._rows(
                f"{prefix}.down_proj", (hidden, width), self.partition.mlp, model.mlp_bias
            ),
            act=Act.SILU,
            is_gated=True,
        )

    def _columns(self, slices: list[_Slice], inputs: int, with_bias: bool) -> Weight:
        """Matrices that read the same input, one below the other: one product instead of three."""
        outputs = sum(len(part.rows) for part in slices)
        weight = self._empty(outputs, inputs)
        bias = self._empty(outputs) if with_bias else None
        row = 0
        for part in slices:
            into = weight.narrow(0, row, len(part.rows))
            name, start = part.name, part.rows.start
            self.weights.read(into, f"{name}.weight", (part.total, inputs), 0, start)
            if bias is not None:
                into = bias.narrow(0, row, len(part.rows))
                self.weights.read(into, f"{name}.bias", (part.total,), 0, start)
            row += len(part.rows)
        return self._quantised(Weight(weight, bias), _own)

    def _rows(
        self, name: str, shape: tuple[int, int], inputs: range, with_bias: bool
    ) -> RowParallel:
        weight = self._slice(f"{name}.weight", shape, 1, inputs)
        bias = self._whole(f"{name}.bias", shape[0]) if with_bias else None
        if self.group.rank:  # else it would be added once a rank
            bias = None
        matrix = self._quantised(Weight(weight, bias), self.group.maximum)
        return RowParallel(matrix, self.group)

    def _quantised(self, weight: Weight, over_ranks: Callable[[Tensor], Tensor]) -> Weight:
        """As `--quantize` says; over_ranks: see `penstock_quantization.online`."""
        if self.quantize is None:
            return weight
        if self.device.type == "meta":  # sizes are the same whatever the numbers are
            over_ranks = _own
        quantised = ONLINE[self.quantize](weight, over_ranks)
        if self.device.type == "cpu":  # where it computes in the model's own type
            return Weight(quantised.dequantised().to(self.dtype), weight.bias)
        return quantised

    def _norm(self, name: str, size: int) -> Norm:
        return Norm(self._whole(f"{name}.weight", size), self.model.norm_eps)

    def _slice(self, name: str, shape: tuple[int, int], dim: int, part: range) -> Tensor:
        local = [*shape]
        local[dim] = len(part)
        into = self._empty(*local)
        self.weights.read(into, name, shape, dim, part.start)
        return into

    def _whole(self, name: str, size: int) -> Tensor:
        into = self._empty(size)
        self.weights.read(into, name, (size,))
        return into

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)


def load_decoder(
    model: Architecture,
    group: Group,
    weights: Weights,
    dtype: torch.dtype,
    device: torch.device,
    quantize: str | None = None,
) -> Decoder:
    """This rank's share of a model, quantised as `--quantize` says.

    Before anything is allocated all of it is made once without memory. Raises ValueError for
    weights that do not fit config.json, and for a model that no memory of the device holds.
    """
    partition = Partition.of(model, group)
    meta = torch.device("meta")
    rehearsal = _Loader(model, group, partition, Rehearsal(weights), dtype, meta, quantize)
    check_memory(rehearsal.decoder().nbytes, device, group.world_size)
    try:
        return _Loader(model, group, partition, weights, dtype, device, quantize).decoder()
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"this shard's weights do not fit beside what else uses {device}: {error}"
        ) from None


def check_memory(needed: int, device: torch.device, world_size: int) -> None:
    """Raises ValueError where a rank's weights exceed all the memory there is for it."""
    total = total_bytes(device, world_size)
    if needed > total:
        raise ValueError(
            f"this shard's weights take {needed / 1e9:.1f} GB, but {device} has "
            f"{total / 1e9:.1f} GB for it: a smaller --dtype, more shards (--num-shard), or "
            "numbers in config.json that are wrong"
        )


def _scaled(part: range, width: int) -> range:
    return range(part.start * width, part.stop * width)


def _own(largest: Tensor) -> Tensor:
    """No other rank holds a part of the rows."""
    return largest
