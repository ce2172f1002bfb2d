"""Which weight of a model is no number: looked for once something has gone wrong."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from penstock_shard.decoder import Decoder, Layer


def first_broken(decoder: Decoder) -> str | None:
    """The first parameter on this rank that holds NaN or infinity, in the order of computation."""
    for name, tensor in _parameters(decoder):
        if not tensor.isfinite().all():
            return f"{name} holds {'NaN' if tensor.isnan().any() else 'infinity'}"
    return None


def _parameters(decoder: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Under their Hugging Face names; of matrices that were joined, under all of theirs."""
    yield "model.embed_tokens.weight", decoder.embedding.weight
    for index, layer in enumerate(decoder.layers):
        for name, tensor in _parameters_of(layer):
            if tensor is not None:
                yield f"model.layers.{index}.{name}", tensor
    yield "model.norm.weight", decoder.norm
    yield "lm_head.weight", decoder.head.weight


def _parameters_of(layer: Layer) -> Iterator[tuple[str, Tensor | None]]:
    yield "input_layernorm.weight", layer.input_norm
    yield "self_attn.{q,k,v}_proj.weight", layer.qkv.weight
    yield "self_attn.{q,k,v}_proj.bias", layer.qkv.bias
    yield "self_attn.{q,k}_norm.weight", layer.qk_norm
    yield "self_attn.o_proj.weight", layer.output.weight
    yield "self_attn.o_proj.bias", layer.output.bias
    yield "post_attention_layernorm.weight", layer.mlp_norm
    yield "mlp.{gate,up}_proj.weight", layer.gate_up.weight
    yield "mlp.{gate,up}_proj.bias", layer.gate_up.bias
    yield "mlp.down_proj.weight", layer.down.weight
    yield "mlp.down_proj.bias", layer.down.bias
