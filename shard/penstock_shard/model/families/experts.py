"""Families whose rows choose among experts."""

from __future__ import annotations

from penstock_shard.model.families.family import ExpertKeys, Family, Names
from penstock_shard.model.families.layer_kinds import (
    gpt_oss_rope,
    gpt_oss_windows,
    named_window,
    switched_window,
)

EXPERTS: dict[str, Family] = {
    "MixtralForCausalLM": Family(
        names=Names(
            router="block_sparse_moe.gate",
            expert_up=("block_sparse_moe.experts.{}.w1", "block_sparse_moe.experts.{}.w3"),
            expert_down="block_sparse_moe.experts.{}.w2",
        ),
        experts=ExpertKeys(
            counts=("num_local_experts",), inner="intermediate_size", normalised=True
        ),
        windows=named_window,
        defaults=(
            ("max_position_embeddings", 131072),
            ("num_key_value_heads", 8),
            ("num_local_experts", 8),
            ("num_experts_per_tok", 2),
            ("rms_norm_eps", 1e-5),
        ),
        model_types=("mixtral",),
    ),
    "Qwen2MoeForCausalLM": Family(
        qkv_bias="qkv_bias",
        experts=ExpertKeys(shared="shared_expert_intermediate_size"),
        windows=switched_window,
        defaults=(
            ("max_position_embeddings", 32768),
            ("qkv_bias", True),
            ("num_experts", 60),
            ("num_experts_per_tok", 4),
            ("moe_intermediate_size", 1408),
            ("shared_expert_intermediate_size", 5632),
        ),
        model_types=("qwen2_moe",),
    ),
    "Qwen3MoeForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        experts=ExpertKeys(),
        qk_norm="head",
        windows=switched_window,
        defaults=(
            ("max_position_embeddings", 32768),
            ("num_experts", 128),
            ("num_experts_per_tok", 8),
            ("moe_intermediate_size", 768),
        ),
        model_types=("qwen3_moe",),
    ),
    "OlmoeForCausalLM": Family(
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        experts=ExpertKeys(inner="intermediate_size"),
        qk_norm="joint",
        defaults=(
            ("max_position_embeddings", 4096),
            ("rms_norm_eps", 1e-5),
            ("num_experts", 64),
            ("num_experts_per_tok", 8),
        ),
        only=(("clip_qkv", None),),
        model_types=("olmoe",),
    ),
    "GptOssForCausalLM": Family(
        names=Names(
            sinks="self_attn.sinks",
            router="mlp.router",
            expert_up=("mlp.experts.gate_up_proj",) * 2,
            expert_down="mlp.experts.down_proj",
        ),
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        experts=ExpertKeys(
            counts=("num_local_experts",),
            inner="intermediate_size",
            normalised=True,
            stacked=True,
            bias=True,
            act="clamped_swiglu",
        ),
        windows=gpt_oss_windows,
        ropes=gpt_oss_rope,
        defaults=(
            ("attention_bias", True),
            ("head_dim", 64),
            ("max_position_embeddings", 131072),
            ("num_attention_heads", 64),
            ("num_key_value_heads", 8),
            ("num_local_experts", 128),
            ("num_experts_per_tok", 4),
            ("rms_norm_eps", 1e-5),
            ("rope_theta", 150000.0),
        ),
        only=(("swiglu_limit", 7.0), ("swiglu_alpha", 1.702)),
        model_types=("gpt_oss",),
    ),
}
