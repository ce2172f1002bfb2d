"""Families whose attention and MLP stand side by side, in most of their models."""

from __future__ import annotations

from dataclasses import replace

from penstock_shard.model.families.family import GPT_KEYS, Family, Names
from penstock_shard.model.families.layer_kinds import (
    Config,
    alternating,
    gptj_rope,
    partial_rope,
    where_windows_are,
)
from penstock_shard.model.families.multipliers import cohere


def _gpt_neox(family: Family, config: Config) -> Family:
    if config["use_parallel_residual"]:
        return family
    return replace(family, block="sequential")


def _falcon(family: Family, config: Config) -> Family:
    """Three layouts of queries, keys and values; parallel by one norm or two, or sequential."""
    new = bool(config["new_decoder_architecture"])
    several = new or not config["multi_query"]  # KV heads
    names = family.names
    if new and config.get("num_ln_in_parallel_attn", 2) == 2:
        names = replace(names, input_norm="ln_attn", mlp_norm="ln_mlp")
    elif new or config["parallel_attn"]:
        names = replace(names, mlp_norm=None)
    parallel = new or config["parallel_attn"]
    return replace(
        family,
        names=names,
        block="parallel" if parallel else "sequential",
        grouped_qkv=several,
        kv_heads=None if several else 1,
    )


_COHERE = Family(
    names=Names(mlp_norm=None),
    block="parallel",
    norm="layer",
    norm_bias=False,
    qkv_bias="attention_bias",
    output_bias="attention_bias",
    interleaved=True,
    multipliers=cohere,
    keys=(("rms_norm_eps", "layer_norm_eps"),),
    defaults=(
        ("max_position_embeddings", 8192),
        ("rms_norm_eps", 1e-5),
        ("tie_word_embeddings", True),
    ),
    only=(("use_qk_norm", False),),
    model_types=("cohere",),
)

PARALLEL: dict[str, Family] = {
    "GPTNeoXForCausalLM": Family(
        names=Names(
            embedding="gpt_neox.embed_in",
            norm="gpt_neox.final_layer_norm",
            head="embed_out",
            block="gpt_neox.layers.{}.",
            qkv=("attention.query_key_value",) * 3,
            output="attention.dense",
            up=("mlp.dense_h_to_4h",),
            down="mlp.dense_4h_to_h",
        ),
        block="parallel",
        norm="layer",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        mlp_bias=True,
        grouped_qkv=True,
        ropes=partial_rope,
        keys=(
            ("rms_norm_eps", "layer_norm_eps"),
            ("rope_theta", "rotary_emb_base"),
            ("partial_rotary_factor", "rotary_pct"),
        ),
        defaults=(
            ("hidden_act", "gelu"),
            ("rms_norm_eps", 1e-5),
            ("partial_rotary_factor", 0.25),
            ("attention_bias", True),
            ("use_parallel_residual", True),
            ("max_position_embeddings", 2048),
        ),
        refine=_gpt_neox,
        model_types=("gpt_neox",),
    ),
    "FalconForCausalLM": Family(
        names=Names(
            embedding="transformer.word_embeddings",
            norm="transformer.ln_f",
            block="transformer.h.{}.",
            qkv=("self_attention.query_key_value",) * 3,
            output="self_attention.dense",
            up=("mlp.dense_h_to_4h",),
            down="mlp.dense_4h_to_h",
        ),
        norm="layer",
        qkv_bias="bias",
        output_bias="bias",
        mlp_bias="bias",
        widening=4,
        keys=(
            ("rms_norm_eps", "layer_norm_epsilon"),
            ("hidden_act", "activation"),
            ("intermediate_size", "ffn_hidden_size"),
            ("num_key_value_heads", "num_kv_heads"),
        ),
        defaults=(
            ("hidden_act", "gelu"),
            ("rms_norm_eps", 1e-5),
            ("max_position_embeddings", 2048),
            ("multi_query", True),
            ("parallel_attn", True),
            ("new_decoder_architecture", False),
            ("tie_word_embeddings", True),
        ),
        only=(("alibi", False),),
        refine=_falcon,
        model_types=("falcon", "refinedwebmodel", "refinedweb"),
    ),
    "CohereForCausalLM": _COHERE,
    "Cohere2ForCausalLM": replace(
        _COHERE,
        windows=alternating(4),
        rotates=where_windows_are,
        model_types=("cohere2",),
    ),
    "PhiForCausalLM": Family(
        names=Names(
            norm="model.final_layernorm",
            mlp_norm=None,
            output="self_attn.dense",
            up=("mlp.fc1",),
            down="mlp.fc2",
        ),
        block="parallel",
        norm="layer",
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        head_bias=True,
        ropes=partial_rope,
        keys=(("rms_norm_eps", "layer_norm_eps"),),
        defaults=(
            ("hidden_act", "gelu_new"),
            ("rms_norm_eps", 1e-5),
            ("partial_rotary_factor", 0.5),
            ("max_position_embeddings", 2048),
        ),
        only=(("qk_layernorm", False),),
        model_types=("phi",),
    ),
    "GPTJForCausalLM": Family(
        names=Names(
            embedding="transformer.wte",
            norm="transformer.ln_f",
            block="transformer.h.{}.",
            input_norm="ln_1",
            mlp_norm=None,
            qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
            output="attn.out_proj",
            up=("mlp.fc_in",),
            down="mlp.fc_out",
        ),
        block="parallel",
        norm="layer",
        mlp_bias=True,
        head_bias=True,
        ropes=gptj_rope,
        interleaved=True,
        widening=4,
        keys=GPT_KEYS,
        defaults=(
            ("hidden_act", "gelu_new"),
            ("rms_norm_eps", 1e-5),
            ("max_position_embeddings", 2048),
        ),
        model_types=("gptj",),
    ),
}
