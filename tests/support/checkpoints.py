"""Tiny random checkpoints of every supported family, with a tokenizer and a chat template.

make_checkpoint(tmp_path / "model", "qwen3")          a folder that any server can load
make_checkpoint(folder, "mistral", sliding_window=8)  with fields of config.json changed
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    ArceeConfig,
    ArceeForCausalLM,
    Cohere2Config,
    Cohere2ForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Ernie4_5Config,
    Ernie4_5ForCausalLM,
    Exaone4Config,
    Exaone4ForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Glm4Config,
    Glm4ForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    HeliumConfig,
    HeliumForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SeedOssConfig,
    SeedOssForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

VOCABULARY = 301  # odd: no number of ranks divides it
TOKENIZER_SIZE = 300
END = "<|im_end|>"

_LLAMA = (LlamaConfig, LlamaForCausalLM)
_MISTRAL = (MistralConfig, MistralForCausalLM)
_MIXTRAL = (MixtralConfig, MixtralForCausalLM)
_QWEN2_MOE = (Qwen2MoeConfig, Qwen2MoeForCausalLM)
_QWEN3_MOE = (Qwen3MoeConfig, Qwen3MoeForCausalLM)
_OLMOE = (OlmoeConfig, OlmoeForCausalLM)
_GPT_OSS = (GptOssConfig, GptOssForCausalLM)
_QWEN2 = (Qwen2Config, Qwen2ForCausalLM)
_QWEN3 = (Qwen3Config, Qwen3ForCausalLM)
_GEMMA2 = (Gemma2Config, Gemma2ForCausalLM)
_GEMMA3 = (Gemma3TextConfig, Gemma3ForCausalLM)
_PHI3 = (Phi3Config, Phi3ForCausalLM)
_STABLELM = (StableLmConfig, StableLmForCausalLM)
_OLMO2 = (Olmo2Config, Olmo2ForCausalLM)
_FALCON = (FalconConfig, FalconForCausalLM)
_GPT2 = (GPT2Config, GPT2LMHeadModel)
_GPT_NEOX = (GPTNeoXConfig, GPTNeoXForCausalLM)
_ARCEE = (ArceeConfig, ArceeForCausalLM)
_COHERE = (CohereConfig, CohereForCausalLM)
_COHERE2 = (Cohere2Config, Cohere2ForCausalLM)
_ERNIE4_5 = (Ernie4_5Config, Ernie4_5ForCausalLM)
_EXAONE4 = (Exaone4Config, Exaone4ForCausalLM)
_GPTBIGCODE = (GPTBigCodeConfig, GPTBigCodeForCausalLM)
_GPTNEO = (GPTNeoConfig, GPTNeoForCausalLM)
_HELIUM = (HeliumConfig, HeliumForCausalLM)
_GPTJ = (GPTJConfig, GPTJForCausalLM)
_GLM = (GlmConfig, GlmForCausalLM)
_GLM4 = (Glm4Config, Glm4ForCausalLM)
_GRANITE = (GraniteConfig, GraniteForCausalLM)
_OPT = (OPTConfig, OPTForCausalLM)
_OLMO3 = (Olmo3Config, Olmo3ForCausalLM)
_PHI = (PhiConfig, PhiForCausalLM)
_SEEDOSS = (SeedOssConfig, SeedOssForCausalLM)
_SMOLLM3 = (SmolLM3Config, SmolLM3ForCausalLM)
_STARCODER2 = (Starcoder2Config, Starcoder2ForCausalLM)

# Every head count has 4 query heads, so that 1, 2 and 4 ranks can share it.
_FAMILIES: dict[str, tuple[tuple[Any, Any], dict[str, Any]]] = {
    "llama2": (_LLAMA, {"num_key_value_heads": 4}),
    "llama3": (
        _LLAMA,
        {
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "llama_linear": (
        _LLAMA,
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}},
    ),
    "llama_dynamic": (
        _LLAMA,
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "llama_bias": (
        _LLAMA,
        {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "head_dim": 24},
    ),
    "mistral": (_MISTRAL, {"num_key_value_heads": 2, "sliding_window": 24}),
    "mistral_wide": (_MISTRAL, {"num_key_value_heads": 1, "sliding_window": None, "head_dim": 24}),
    "qwen2": (_QWEN2, {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen2_window": (
        _QWEN2,
        {
            "num_key_value_heads": 2,
            "use_sliding_window": True,
            "sliding_window": 16,
            "max_window_layers": 1,
        },
    ),
    "qwen2_yarn": (
        _QWEN2,
        {
            "num_key_value_heads": 4,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
            },
        },
    ),
    "qwen3": (_QWEN3, {"num_key_value_heads": 2, "head_dim": 24, "tie_word_embeddings": True}),
    "qwen3_bias": (_QWEN3, {"num_key_value_heads": 4, "head_dim": 16, "attention_bias": True}),
    "mixtral": (_MIXTRAL, {"num_local_experts": 8, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        _QWEN2_MOE,
        {
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 128,
            "decoder_sparse_step": 2,  # the second of three layers has experts
        },
    ),
    "qwen3_moe": (
        _QWEN3_MOE,
        {
            "num_experts": 7,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 48,
            "head_dim": 24,
            "norm_topk_prob": True,
            "mlp_only_layers": [0],
        },
    ),
    "olmoe": (_OLMOE, {"num_experts": 4, "num_experts_per_tok": 4}),
    "gpt_oss": (
        _GPT_OSS,
        {
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "head_dim": 16,
            "sliding_window": 12,
            "num_hidden_layers": 4,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "truncate": False,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "gemma2": (
        _GEMMA2,
        {
            "head_dim": 24,
            "query_pre_attn_scalar": 20,
            "sliding_window": 12,
            "attn_logit_softcapping": 1.5,  # low enough to matter
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma3": (
        _GEMMA3,
        {
            "num_hidden_layers": 7,  # the sixth sees all
            "num_key_value_heads": 1,
            "head_dim": 16,
            "sliding_window": 12,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "phi3": (_PHI3, {"num_key_value_heads": 4, "sliding_window": 20}),
    "phi3_long": (
        _PHI3,
        {
            "original_max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.75,
                "original_max_position_embeddings": 128,
                "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
                "long_factor": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0],
            },
        },
    ),
    "stablelm": (_STABLELM, {"partial_rotary_factor": 0.5}),
    "stablelm_bias": (_STABLELM, {"num_key_value_heads": 4, "use_qkv_bias": True}),
    "olmo2": (_OLMO2, {}),
    "olmo2_bias": (_OLMO2, {"num_key_value_heads": 1, "attention_bias": True, "head_dim": 24}),
    "gpt_neox": (_GPT_NEOX, {"num_key_value_heads": None}),
    "gpt_neox_sequential": (
        _GPT_NEOX,
        {"num_key_value_heads": None, "use_parallel_residual": False, "attention_bias": False},
    ),
    "falcon": (_FALCON, {"num_key_value_heads": None}),
    "falcon_heads": (
        _FALCON,
        {
            "num_key_value_heads": None,
            "multi_query": False,
            "bias": True,
            "ffn_hidden_size": 96,
            "tie_word_embeddings": False,
        },
    ),
    "falcon_sequential": (_FALCON, {"num_key_value_heads": None, "parallel_attn": False}),
    "falcon_new": (
        _FALCON,
        {"num_key_value_heads": None, "num_kv_heads": 2, "new_decoder_architecture": True},
    ),
    "falcon_new_one_norm": (
        _FALCON,
        {
            "num_key_value_heads": None,
            "num_kv_heads": 2,
            "new_decoder_architecture": True,
            "num_ln_in_parallel_attn": 1,
        },
    ),
    "gpt2": (_GPT2, {"num_key_value_heads": None}),
    "starcoder2": (_STARCODER2, {"num_key_value_heads": 2, "sliding_window": 12}),
    "smollm3": (_SMOLLM3, {"num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 1]}),
    "granite": (
        _GRANITE,
        {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.4,
            "logits_scaling": 6.0,
            "rms_norm_eps": 0.3,  # large enough to matter
        },
    ),
    "glm": (_GLM, {"head_dim": 16}),
    "ernie4_5": (_ERNIE4_5, {"head_dim": 24, "use_bias": True}),
    "seed_oss": (_SEEDOSS, {"head_dim": 24, "attention_out_bias": True}),
    "arcee": (_ARCEE, {}),
    "olmo3": (
        _OLMO3,
        {
            "num_hidden_layers": 4,
            "sliding_window": 12,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "yarn",
                    "rope_theta": 10000.0,
                    "factor": 8.0,
                    "original_max_position_embeddings": 64,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    "exaone4": (_EXAONE4, {"num_hidden_layers": 4, "sliding_window": 12}),
    "exaone4_all": (
        _EXAONE4,
        {
            "num_key_value_heads": 1,
            "sliding_window": None,
            "layer_types": ["full_attention"] * 3,
        },
    ),
    "glm4": (_GLM4, {"head_dim": 16, "num_key_value_heads": 1}),
    "cohere": (_COHERE, {"attention_bias": True}),
    "cohere2": (_COHERE2, {"num_hidden_layers": 4, "sliding_window": 12}),
    "phi": (_PHI, {"num_key_value_heads": 4}),
    "gptj": (_GPTJ, {"num_key_value_heads": None, "rotary_dim": 8}),
    "gpt_bigcode": (_GPTBIGCODE, {"num_key_value_heads": None}),
    "gpt_bigcode_heads": (_GPTBIGCODE, {"num_key_value_heads": None, "multi_query": False}),
    "helium": (_HELIUM, {"head_dim": 16, "attention_bias": True}),
    "gpt_neo": (
        _GPTNEO,
        {
            "num_key_value_heads": None,
            "num_hidden_layers": None,
            "num_layers": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 12,
        },
    ),
    "opt": (_OPT, {"num_key_value_heads": None, "ffn_dim": 96}),
}

FAMILIES = tuple(_FAMILIES)
BLOCKS_OF_LLAMA = FAMILIES[: FAMILIES.index("mixtral")]  # norms, products and tensor names too

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_CORPUS = [
    "The river turns the valve and the valve turns the turbine.",
    "Water runs through steel pipes into the penstock, and the meter counts it.",
]


def make_checkpoint(folder: Path, family: str, seed: int = 0, **overrides: Any) -> Path:
    """Write a model folder: config.json, safetensors, tokenizer. Returns it.

    overrides replace fields of config.json. The same arguments give the same weights.
    """
    (config_class, model_class), fields = _FAMILIES[family]
    tokenizer = _tokenizer()
    end = tokenizer.token_to_id(END)
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": end,
        "pad_token_id": None,
    }
    chosen = common | fields | overrides
    for name in ("num_key_value_heads", "num_hidden_layers"):
        if chosen[name] is None:
            del chosen[name]  # the family has no such thing
    config = config_class(**chosen)
    torch.manual_seed(seed)
    model = model_class(config).to(torch.float32)
    _randomise(model)
    model.save_pretrained(folder)
    _write_tokenizer(folder, tokenizer)
    return folder


@torch.no_grad()
def _randomise(model: torch.nn.Module) -> None:
    """Nothing stays neutral: a bias or norm that is not read must change the answer."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and name.endswith("weight"):  # a norm's
            parameter.normal_(1.0, 0.2)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.2)
        else:
            # Of unit gain, so that every layer has a say in the logits.
            parameter.normal_(0.0, parameter.shape[-1] ** -0.5)


@cache
def _tokenizer() -> Tokenizer:
    """Byte-level BPE: every text can be encoded, and some tokens are parts of a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_SIZE,
        special_tokens=["<|endoftext|>", "<|im_start|>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    return tokenizer


def _write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": END,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
