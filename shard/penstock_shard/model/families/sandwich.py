"""Families with norms behind attention and MLP, before the residual."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from penstock_shard.model.families.family import Family, Names
from penstock_shard.model.families.layer_kinds import (
    alternating,
    partial_rope,
    scaled_and_plain_ropes,
    where_windows_are,
)
from penstock_shard.model.families.sequential import GLM_DEFAULTS
from penstock_shard.model.rope_config import global_and_local_ropes

_POST_NORMS = Names(
    attention_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    output_norm="post_feedforward_layernorm",
)
_GEMMA = Family(
    names=_POST_NORMS,
    block="sandwich",
    norm="rms_one",
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    query_scalar=True,
    scaled_embedding=True,
    keys=(("hidden_act", "hidden_activation"),),
    only=(("use_bidirectional_attention", False),),
)
_GEMMA_DEFAULTS: tuple[tuple[str, Any], ...] = (
    ("hidden_act", "gelu_pytorch_tanh"),
    ("head_dim", 256),
    ("query_pre_attn_scalar", 256),
    ("tie_word_embeddings", True),
)

# Checkpoints of models that see images too hold the language model under other names.
_BESIDE_IMAGES = replace(
    _POST_NORMS,
    others=(
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
    ),
    unserved=(
        *("vision_tower.", "multi_modal_projector."),
        *("model.vision_tower.", "model.multi_modal_projector."),
    ),
)
_ONLY_BEHIND = Names(
    input_norm=None,
    attention_norm="post_attention_layernorm",
    mlp_norm=None,
    output_norm="post_feedforward_layernorm",
)

SANDWICH: dict[str, Family] = {
    "Gemma2ForCausalLM": replace(
        _GEMMA,
        windows=alternating(2),
        soft_caps=(50.0, 30.0),
        defaults=(*_GEMMA_DEFAULTS, ("max_position_embeddings", 8192)),
        model_types=("gemma2",),
    ),
    "Gemma3ForCausalLM": replace(
        _GEMMA,
        names=_BESIDE_IMAGES,
        qk_norm="head",
        windows=alternating(6),
        ropes=global_and_local_ropes,
        soft_caps=(None, None),
        defaults=(
            *_GEMMA_DEFAULTS,
            ("max_position_embeddings", 131072),
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
            ("vocab_size", 262208),
        ),
        model_types=("gemma3_text",),
    ),
    "Olmo2ForCausalLM": Family(
        names=Names(
            input_norm=None,
            attention_norm="post_attention_layernorm",
            mlp_norm=None,
            output_norm="post_feedforward_layernorm",
        ),
        block="sandwich",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="joint",
        defaults=(("max_position_embeddings", 2048), ("rms_norm_eps", 1e-5)),
        model_types=("olmo2",),
    ),
    "Olmo3ForCausalLM": Family(
        names=_ONLY_BEHIND,
        block="sandwich",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="joint",
        windows=alternating(4),
        ropes=scaled_and_plain_ropes,
        defaults=(("max_position_embeddings", 2048), ("rms_norm_eps", 1e-5)),
        model_types=("olmo3",),
    ),
    "Exaone4ForCausalLM": Family(
        names=_ONLY_BEHIND,
        block="sandwich",
        qk_norm="head",
        windows=alternating(4),
        rotates=where_windows_are,
        defaults=(("max_position_embeddings", 2048), ("rms_norm_eps", 1e-5)),
        model_types=("exaone4",),
    ),
    "Glm4ForCausalLM": Family(
        names=Names(
            attention_norm="post_self_attn_layernorm",
            mlp_norm="post_attention_layernorm",
            output_norm="post_mlp_layernorm",
            up=("mlp.gate_up_proj",) * 2,
        ),
        block="sandwich",
        qkv_bias="attention_bias",
        ropes=partial_rope,
        interleaved=True,
        defaults=GLM_DEFAULTS,
        model_types=("glm4",),
    ),
}
