"""Families whose blocks are attention, then an MLP, each behind a norm."""

from __future__ import annotations

from penstock_shard.model.families.family import Family, Names
from penstock_shard.model.families.layer_kinds import (
    every_fourth_does_not,
    named_window,
    one_window,
    partial_rope,
    switched_window,
)
from penstock_shard.model.families.multipliers import granite

GLM_DEFAULTS = (
    ("max_position_embeddings", 131072),
    ("num_key_value_heads", 2),
    ("head_dim", 128),
    ("rms_norm_eps", 1.5625e-7),
    ("partial_rotary_factor", 0.5),
    ("attention_bias", True),
)

SEQUENTIAL: dict[str, Family] = {
    "LlamaForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        defaults=(("max_position_embeddings", 2048),),
        model_types=("llama", "yi"),
    ),
    "MistralForCausalLM": Family(
        windows=one_window,
        defaults=(("max_position_embeddings", 131072), ("num_key_value_heads", 8)),
        model_types=("mistral",),
    ),
    "Qwen2ForCausalLM": Family(
        qkv_bias=True,
        windows=switched_window,
        defaults=(("max_position_embeddings", 32768),),
        model_types=("qwen2",),
    ),
    "Qwen3ForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm="head",
        windows=switched_window,
        defaults=(("max_position_embeddings", 32768), ("head_dim", 128)),
        model_types=("qwen3",),
    ),
    "Phi3ForCausalLM": Family(
        names=Names(qkv=("self_attn.qkv_proj",) * 3, up=("mlp.gate_up_proj",) * 2),
        windows=named_window,
        ropes=partial_rope,
        defaults=(("max_position_embeddings", 4096), ("rms_norm_eps", 1e-5)),
        model_types=("phi3",),
    ),
    "StableLmForCausalLM": Family(
        norm="layer",
        qkv_bias="use_qkv_bias",
        ropes=partial_rope,
        keys=(("rms_norm_eps", "layer_norm_eps"),),
        defaults=(
            ("rms_norm_eps", 1e-5),
            ("partial_rotary_factor", 0.25),
            ("max_position_embeddings", 4096),
        ),
        only=(("qk_layernorm", False), ("use_parallel_residual", False)),
        model_types=("stablelm",),
    ),
    "Starcoder2ForCausalLM": Family(
        names=Names(up=("mlp.c_fc",), down="mlp.c_proj"),
        norm="layer",
        qkv_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        windows=named_window,
        keys=(("rms_norm_eps", "norm_epsilon"),),
        defaults=(
            ("hidden_act", "gelu_pytorch_tanh"),
            ("rms_norm_eps", 1e-5),
            ("max_position_embeddings", 4096),
            ("num_key_value_heads", 2),
            ("tie_word_embeddings", True),
            ("use_bias", True),
        ),
        model_types=("starcoder2",),
    ),
    "SmolLM3ForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        rotates=every_fourth_does_not,
        defaults=(
            ("max_position_embeddings", 32768),
            ("num_key_value_heads", 4),
            ("tie_word_embeddings", True),
        ),
        only=(("use_sliding_window", False),),
        model_types=("smollm3",),
    ),
    "GraniteForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        multipliers=granite,
        defaults=(("max_position_embeddings", 2048),),
        model_types=("granite",),
    ),
    "GlmForCausalLM": Family(
        names=Names(up=("mlp.gate_up_proj",) * 2),
        qkv_bias="attention_bias",
        ropes=partial_rope,
        interleaved=True,
        defaults=GLM_DEFAULTS,
        model_types=("glm",),
    ),
    "HeliumForCausalLM": Family(
        qkv_bias="attention_bias",
        mlp_bias="mlp_bias",
        interleaved=True,
        defaults=(
            ("max_position_embeddings", 4096),
            ("num_key_value_heads", 20),
            ("head_dim", 128),
            ("rms_norm_eps", 1e-8),
        ),
        model_types=("helium",),
    ),
    "Ernie4_5ForCausalLM": Family(
        qkv_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        interleaved=True,
        defaults=(
            ("max_position_embeddings", 131072),
            ("num_key_value_heads", 2),
            ("head_dim", 128),
            ("rms_norm_eps", 1e-5),
            ("rope_theta", 500000.0),
            ("tie_word_embeddings", True),
        ),
        model_types=("ernie4_5",),
    ),
    "SeedOssForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_out_bias",
        mlp_bias="mlp_bias",
        defaults=(
            ("max_position_embeddings", 524288),
            ("num_key_value_heads", 8),
            ("head_dim", 128),
            ("attention_bias", True),
        ),
        model_types=("seed_oss",),
    ),
    "ArceeForCausalLM": Family(
        names=Names(up=("mlp.up_proj",)),
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias="mlp_bias",
        defaults=(
            ("hidden_act", "relu2"),
            ("max_position_embeddings", 4096),
            ("rms_norm_eps", 1e-5),
        ),
        model_types=("arcee",),
    ),
}
