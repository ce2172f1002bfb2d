"""Model folders without weights, for `--load-format dummy`: config.json and a synthetic tokenizer.

    python -m benchmarks.configs llama-3.1-8b /tmp/8b

The shapes are those of the published models. Speed depends on the vocabulary's size and not on its
words, so the tokenizer is a byte-level BPE whose merges are made, not learnt (0.3 s for 128,256).
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

SPECIAL = 256  # ids at the end of the vocabulary, as in Llama 3
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPACE = "Ġ"  # how byte-level BPE writes a space
BEGIN, END, END_OF_TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a Llama, or of a family with the same blocks; of gpt-oss those that differ between
    its models."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int = 128_256
    positions: int = 131_072
    rope_factor: float | None = 8.0  # Llama 3.1's rope scaling over 8192 positions
    tied: bool = False
    family: str = "llama"  # or "qwen2": the same blocks, with a bias on queries, keys and values
    experts: int = 0  # of "gpt_oss"


ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
}
GPT_OSS_20B = Shape(
    hidden=2880,
    intermediate=2880,
    layers=24,
    heads=64,
    kv_heads=8,
    head_dim=64,
    vocab=201_088,
    family="gpt_oss",
    experts=32,
)
QWEN2_5_7B = Shape(
    hidden=3584,
    intermediate=18_944,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    vocab=152_064,
    positions=32_768,
    rope_factor=None,
    family="qwen2",
)
SHAPES = {
    "llama-3.1-8b": Shape(
        hidden=4096, intermediate=14_336, layers=32, heads=32, kv_heads=8, head_dim=128
    ),
    "llama-3.2-1b": Shape(
        hidden=2048,
        intermediate=8192,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        rope_factor=32.0,
        tied=True,
    ),
    # A quarter of Llama-3.1-70B: what fits one card and still has the 70B's matrix shapes.
    "llama-3.1-70b-20-layers": Shape(
        hidden=8192, intermediate=28_672, layers=20, heads=64, kv_heads=8, head_dim=128
    ),
    "qwen2.5-7b": QWEN2_5_7B,
    # What its biases cost is the difference from this one.
    "qwen2.5-7b-without-bias": replace(QWEN2_5_7B, family="llama"),
    # Experts in MXFP4.
    "gpt-oss-20b": GPT_OSS_20B,
    "gpt-oss-20b-4-layers": replace(GPT_OSS_20B, layers=4),
    "gpt-oss-120b": replace(GPT_OSS_20B, layers=36, experts=128),
    # About the demo model's size: for comparisons on a CPU.
    "tiny": Shape(
        hidden=256,
        intermediate=704,
        layers=6,
        heads=8,
        kv_heads=4,
        head_dim=32,
        vocab=4096,
        positions=4096,
        rope_factor=None,
        tied=True,
    ),
}


def config_of(shape: Shape) -> dict[str, Any]:
    """config.json in the layout of the published Llama 3 models."""
    scaling = {
        "rope_type": "llama3",
        "factor": shape.rope_factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    more = gpt_oss(shape) if shape.family == "gpt_oss" else {}
    return {
        "architectures": [ARCHITECTURES[shape.family]],
        "model_type": shape.family,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": shape.vocab - SPECIAL,
        "eos_token_id": [shape.vocab - SPECIAL + 1, shape.vocab - SPECIAL + 9],
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.positions,
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_scaling": scaling if shape.rope_factor else None,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab,
        **more,
    }


def gpt_oss(shape: Shape) -> dict[str, Any]:
    """What its config.json says beside, or otherwise."""
    whole = ("model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens")
    return {
        "attention_bias": True,
        "layer_types": ["sliding_attention", "full_attention"] * (shape.layers // 2),
        "num_experts_per_tok": 4,
        "num_local_experts": shape.experts,
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": [*whole, "lm_head"],
        },
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "original_max_position_embeddings": 4096,
            "truncate": False,
        },
        "rope_theta": 150_000.0,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
    }


def merges() -> Iterator[tuple[str, str]]:
    """Pairs of existing tokens: two letters, a space before one, then longer and longer words."""
    pairs = ["".join(two) for two in itertools.product(LETTERS, LETTERS)]
    yield from itertools.product(LETTERS, LETTERS)
    yield from ((SPACE, letter) for letter in LETTERS)
    yield from itertools.product([SPACE + letter for letter in LETTERS], pairs)
    yield from itertools.product(pairs, pairs)


def special_names() -> list[str]:
    """The 256 special tokens; those with a meaning stand where Llama 3 has them."""
    names = [f"<|reserved_special_token_{i}|>" for i in range(SPECIAL)]
    names[0], names[1], names[9] = BEGIN, END, END_OF_TURN
    return names


@functools.cache
def build_tokenizer(vocab: int) -> Tokenizer:
    """A byte-level BPE of exactly `vocab` tokens that puts BEGIN before a text."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    chosen = list(itertools.islice(merges(), vocab - SPECIAL - len(tokens)))
    tokens += ["".join(pair) for pair in chosen]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, chosen))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(n, special=True) for n in special_names()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    if tokenizer.get_vocab_size() != vocab:
        raise ValueError(f"vocabulary has {tokenizer.get_vocab_size()} tokens, wanted {vocab}")
    return tokenizer


def write_model_folder(name: str, folder: Path) -> Path:
    """Writes config.json, generation_config.json and the tokenizer; returns the folder."""
    shape = SHAPES[name]
    config = config_of(shape)
    folder.mkdir(parents=True, exist_ok=True)
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id")}
    tokenizer = {
        "bos_token": BEGIN,
        "eos_token": END,
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": shape.positions,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for file, content in (
        ("config.json", config),
        ("generation_config.json", generation),
        ("tokenizer_config.json", tokenizer),
    ):
        (folder / file).write_text(json.dumps(content, indent=1) + "\n")
    build_tokenizer(shape.vocab).save(str(folder / "tokenizer.json"))
    return folder


def main() -> None:
    """Writes one model folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.configs", description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(write_model_folder(arguments.shape, arguments.folder))


if __name__ == "__main__":
    main()
