"""Families with learned positions, and no rotation."""

from __future__ import annotations

from dataclasses import replace

from penstock_shard.model.config_numbers import whole
from penstock_shard.model.families.family import GPT_KEYS, Family, Names
from penstock_shard.model.families.layer_kinds import Config, gpt_neo_windows, no_rope
from penstock_shard.model.families.multipliers import unscaled


def _gpt_bigcode(family: Family, config: Config) -> Family:
    """One KV head, behind all queries; or one a query head, beside it."""
    if config["multi_query"]:
        return replace(family, kv_heads=1)
    heads = whole(config, "num_attention_heads")
    return replace(family, grouped_qkv=True, kv_heads=heads)


def _opt(family: Family, config: Config) -> Family:
    """Raises ValueError for the one model (350m) whose embedding is narrower than its blocks."""
    hidden = whole(config, "hidden_size")
    if config.get("word_embed_proj_dim", hidden) != hidden:
        raise ValueError(f"word_embed_proj_dim must be hidden_size, {hidden}")
    return family


_GPT2 = Family(
    names=Names(
        embedding="transformer.wte",
        positions="transformer.wpe",
        norm="transformer.ln_f",
        block="transformer.h.{}.",
        input_norm="ln_1",
        mlp_norm="ln_2",
        qkv=("attn.c_attn",) * 3,
        output="attn.c_proj",
        up=("mlp.c_fc",),
        down="mlp.c_proj",
        others=tuple((part, f"transformer.{part}") for part in ("wte.", "wpe.", "h.", "ln_f.")),
    ),
    norm="layer",
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
    transposed=True,
    ropes=no_rope,
    widening=4,
    keys=GPT_KEYS,
    defaults=(
        ("hidden_act", "gelu_new"),
        ("rms_norm_eps", 1e-5),
        ("max_position_embeddings", 1024),
        ("tie_word_embeddings", True),
    ),
    only=(
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ),
    model_types=("gpt2",),
)

LEARNED: dict[str, Family] = {
    "GPT2LMHeadModel": _GPT2,
    "GPTBigCodeForCausalLM": replace(
        _GPT2,
        transposed=False,
        defaults=(*_GPT2.defaults, ("hidden_act", "gelu_pytorch_tanh"), ("multi_query", True)),
        refine=_gpt_bigcode,
        model_types=("gpt_bigcode",),
    ),
    "GPTNeoForCausalLM": Family(
        names=Names(
            embedding="transformer.wte",
            positions="transformer.wpe",
            norm="transformer.ln_f",
            block="transformer.h.{}.",
            input_norm="ln_1",
            mlp_norm="ln_2",
            qkv=("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
            output="attn.attention.out_proj",
            up=("mlp.c_fc",),
            down="mlp.c_proj",
        ),
        norm="layer",
        output_bias=True,
        mlp_bias=True,
        windows=gpt_neo_windows,
        ropes=no_rope,
        multipliers=unscaled,
        widening=4,
        keys=(
            ("num_hidden_layers", "num_layers"),
            ("num_attention_heads", "num_heads"),
            ("sliding_window", "window_size"),
            ("hidden_act", "activation_function"),
            ("rms_norm_eps", "layer_norm_epsilon"),
        ),
        defaults=(
            ("hidden_act", "gelu_new"),
            ("rms_norm_eps", 1e-5),
            ("max_position_embeddings", 2048),
            ("tie_word_embeddings", True),
        ),
        model_types=("gpt_neo",),
    ),
    "OPTForCausalLM": Family(
        names=Names(
            embedding="model.decoder.embed_tokens",
            positions="model.decoder.embed_positions",
            norm="model.decoder.final_layer_norm",
            block="model.decoder.layers.{}.",
            input_norm="self_attn_layer_norm",
            mlp_norm="final_layer_norm",
            output="self_attn.out_proj",
            up=("fc1",),
            down="fc2",
            others=(("decoder.", "model.decoder."),),
        ),
        norm="layer",
        qkv_bias="enable_bias",
        output_bias="enable_bias",
        mlp_bias="enable_bias",
        first_position=2,
        ropes=no_rope,
        keys=(("intermediate_size", "ffn_dim"), ("hidden_act", "activation_function")),
        defaults=(
            ("hidden_act", "relu"),
            ("rms_norm_eps", 1e-5),
            ("max_position_embeddings", 2048),
            ("enable_bias", True),
            ("tie_word_embeddings", True),
        ),
        only=(
            ("do_layer_norm_before", True),
            ("_remove_final_layer_norm", False),
            ("layer_norm_elementwise_affine", True),
        ),
        refine=_opt,
        model_types=("opt",),
    ),
}
