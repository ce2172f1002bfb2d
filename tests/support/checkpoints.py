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
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 301  # odd: no number of ranks divides it
TOKENIZER_SIZE = 300
END = "<|im_end|>"

_LLAMA = (LlamaConfig, LlamaForCausalLM)
_MISTRAL = (MistralConfig, MistralForCausalLM)
_QWEN2 = (Qwen2Config, Qwen2ForCausalLM)
_QWEN3 = (Qwen3Config, Qwen3ForCausalLM)

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
}

FAMILIES = tuple(_FAMILIES)

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
    config = config_class(**(common | fields | overrides))
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
        if name.endswith("norm.weight"):
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
