"""Fills a decoder with this rank's share of the weights, under their Hugging Face names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock_shard.architecture import Architecture
from penstock_shard.decoder import Decoder, Layer
from penstock_shard.kv_cache import total_bytes
from penstock_shard.parallel import (
    Group,
    Linear,
    Partition,
    RowParallelLinear,
    VocabularyEmbedding,
    VocabularyHead,
)
from penstock_shard.weights import Rehearsal, Weights


@dataclass(frozen=True, slots=True)
class _Part:
    """Some output rows of a fused matrix: `rows` of the `total` rows of the tensor `name`."""

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

    def decoder(self) -> Decoder:
        model, vocabulary = self.model, self.partition.vocabulary
        shape = (model.vocab_size, model.hidden_size)
        embedding = self._slice("model.embed_tokens.weight", shape, 0, vocabulary)
        layers = [self._layer(index) for index in range(model.num_layers)]
        norm = self._whole("model.norm.weight", model.hidden_size)
        head = embedding
        if not model.tied_embeddings:
            head = self._slice("lm_head.weight", shape, 0, vocabulary)
        self.weights.finish(frozenset({"lm_head.weight"} if model.tied_embeddings else ()))
        return Decoder(
            model=model,
            partition=self.partition,
            embedding=VocabularyEmbedding(embedding, vocabulary.start, self.group),
            layers=layers,
            norm=norm,
            head=VocabularyHead(head, model.vocab_size, self.group),
        )

    def _layer(self, index: int) -> Layer:
        model, prefix = self.model, f"model.layers.{index}"
        hidden, mlp = model.hidden_size, model.intermediate_size
        query_width = model.num_heads * model.head_dim
        return Layer(
            input_norm=self._whole(f"{prefix}.input_layernorm.weight", hidden),
            qkv=self._columns(self._qkv_parts(f"{prefix}.self_attn"), hidden, model.qkv_bias),
            qk_norm=self._qk_norm(f"{prefix}.self_attn") if model.qk_norm else None,
            output=self._rows(
                f"{prefix}.self_attn.o_proj",
                (hidden, query_width),
                _scaled(self.partition.heads, model.head_dim),
                model.output_bias,
            ),
            mlp_norm=self._whole(f"{prefix}.post_attention_layernorm.weight", hidden),
            gate_up=self._columns(
                [
                    _Part(f"{prefix}.mlp.{name}", self.partition.mlp, mlp)
                    for name in ("gate_proj", "up_proj")
                ],
                hidden,
                model.mlp_bias,
            ),
            down=self._rows(
                f"{prefix}.mlp.down_proj", (hidden, mlp), self.partition.mlp, model.mlp_bias
            ),
            window=model.windows[index],
        )

    def _qkv_parts(self, prefix: str) -> list[_Part]:
        model, width = self.model, self.model.head_dim
        heads = _scaled(self.partition.heads, width)
        kv_heads = _scaled(self.partition.kv_heads, width)
        return [
            _Part(f"{prefix}.q_proj", heads, model.num_heads * width),
            _Part(f"{prefix}.k_proj", kv_heads, model.num_kv_heads * width),
            _Part(f"{prefix}.v_proj", kv_heads, model.num_kv_heads * width),
        ]

    def _qk_norm(self, prefix: str) -> Tensor:
        """One row a head, so that queries and keys are normalised in one call."""
        width = self.model.head_dim
        query = self._whole(f"{prefix}.q_norm.weight", width)
        key = self._whole(f"{prefix}.k_norm.weight", width)
        heads, kv_heads = len(self.partition.heads), len(self.partition.kv_heads)
        return torch.cat((query.expand(heads, -1), key.expand(kv_heads, -1)))

    def _columns(self, parts: list[_Part], inputs: int, with_bias: bool) -> Linear:
        """Matrices that read the same input, one below the other: one product instead of three."""
        outputs = sum(len(part.rows) for part in parts)
        weight = self._empty(outputs, inputs)
        bias = self._empty(outputs) if with_bias else None
        row = 0
        for part in parts:
            into = weight.narrow(0, row, len(part.rows))
            name, start = part.name, part.rows.start
            self.weights.read(into, f"{name}.weight", (part.total, inputs), 0, start)
            if bias is not None:
                into = bias.narrow(0, row, len(part.rows))
                self.weights.read(into, f"{name}.bias", (part.total,), 0, start)
            row += len(part.rows)
        return Linear(weight, bias)

    def _rows(
        self, name: str, shape: tuple[int, int], inputs: range, with_bias: bool
    ) -> RowParallelLinear:
        weight = self._slice(f"{name}.weight", shape, 1, inputs)
        bias = self._whole(f"{name}.bias", shape[0]) if with_bias else None
        return RowParallelLinear(weight, bias, self.group)

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
) -> Decoder:
    """This rank's share of a model.

    Before anything is allocated all of it is made once without memory. Raises ValueError for
    weights that do not fit config.json, and for a model that no memory of the device holds.
    """
    partition = Partition.of(model, group)
    meta = torch.device("meta")
    shapes = _Loader(model, group, partition, Rehearsal(weights), dtype, meta).decoder()
    check_memory(weight_bytes(shapes), device, group.world_size)
    try:
        return _Loader(model, group, partition, weights, dtype, device).decoder()
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


def weight_bytes(decoder: Decoder) -> int:
    """Bytes of the parameters on this rank; tied ones count once."""
    tensors: list[Tensor | None] = [decoder.embedding.weight, decoder.norm, decoder.head.weight]
    for layer in decoder.layers:
        tensors += [layer.input_norm, layer.mlp_norm, layer.qk_norm]
        for linear in (layer.qkv, layer.output, layer.gate_up, layer.down):
            tensors += [linear.weight, linear.bias]
    unique = {id(tensor): tensor.nbytes for tensor in tensors if tensor is not None}
    return sum(unique.values())


def _scaled(part: range, width: int) -> range:
    return range(part.start * width, part.stop * width)
