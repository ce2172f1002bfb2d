"""The folders for dummy weights are what transformers and tokenizers take for real models."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.configs import (
    ARCHITECTURES,
    BEGIN,
    SHAPES,
    SPECIAL,
    build_tokenizer,
    write_model_folder,
)
from tokenizers import Tokenizer
from transformers import AutoConfig


@pytest.mark.parametrize("name", SHAPES)
def test_config_is_the_shape(name: str, tmp_path: Path) -> None:
    folder, shape = write_model_folder(name, tmp_path), SHAPES[name]
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == [ARCHITECTURES[shape.family]]
    assert (config.hidden_size, config.num_hidden_layers) == (shape.hidden, shape.layers)
    assert config.num_attention_heads * config.head_dim == shape.heads * shape.head_dim
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == config.vocab_size == shape.vocab
    assert tokenizer.token_to_id(BEGIN) == config.bos_token_id


def test_published_sizes_of_8b() -> None:
    shape = SHAPES["llama-3.1-8b"]
    attention = shape.hidden * shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    layer = attention + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden
    total = shape.layers * layer + 2 * shape.vocab * shape.hidden + shape.hidden
    assert total == 8_030_261_248


def test_tokenizer_round_trips_any_text_and_any_id() -> None:
    tokenizer = build_tokenizer(4096)
    text = "Hello, wörld: naïve 東京 🙂\n\ttabs"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    decoded = [tokenizer.decode([i]) for i in range(257, 4096 - SPECIAL)]
    assert all(decoded) and len(set(decoded)) == len(decoded)
