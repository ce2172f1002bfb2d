"""Small model folders, each with one habit that real ones have. Without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

SPECIAL = ["<pad>", "<s>", "</s>", "<|u|>", "<|a|>", "<|e|>"]
TEMPLATE = (
    "{% for m in messages %}{{ {'user': '<|u|>', 'assistant': '<|a|>'}[m.role] + m.content }}<|e|>"
    "{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}"
)


def byte_level(*added: AddedToken) -> Tokenizer:
    """Bytes and special tokens: 262 ids, of which 6 + b is the id of the letter of byte b."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(SPECIAL + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens(list(added))
    return tokenizer


def sentencepiece(scheme: str | None = None, special: list[str] = SPECIAL) -> Tokenizer:
    """Letters, a few merges and bytes. scheme: of Metaspace; None: a normalizer instead."""
    vocabulary = {token: i for i, token in enumerate([*special, "<unk>"])}
    letters = "▁abcdefghijklmnopqrstuvwxyz:<"
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "a"), ("▁", "<")]
    for token in [*(f"<0x{b:02X}>" for b in range(256)), *letters, *(a + b for a, b in merges)]:
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    if scheme is None:
        parts = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(parts)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    return tokenizer


def with_decoder(tokenizer: Tokenizer, *parts: Any) -> Tokenizer:
    tokenizer.decoder = decoders.Sequence(list(parts))
    return tokenizer


def panicking() -> Tokenizer:
    """A pre-tokenizer that gives up at `aaaa…b`, with a panic of Rust."""
    tokenizer = byte_level()
    catastrophic = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    byte_pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([catastrophic, byte_pieces])
    return tokenizer


def stripping() -> Tokenizer:
    """A text of spaces comes to nothing."""
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.Strip()
    return tokenizer


def putting_before(token_id: int) -> Tokenizer:
    """What is put around a text names an id that the tokenizer does not have."""
    tokenizer = byte_level()
    state = json.loads(tokenizer.to_str())
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", token_id)])
    state["post_processor"] = json.loads(template.__getstate__())
    return Tokenizer.from_str(json.dumps(state))


def write(folder: Path, tokenizer: Tokenizer, **config: Any) -> Path:
    """A folder with the tokenizer, its configuration and that of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def _added_in_the_configuration(folder: Path) -> Path:
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    tokens = {262: "<|im_end|>", 263: "<|im_start|>"}
    decoder = {i: {"content": t, **flags, "special": True} for i, t in tokens.items()}
    template = (
        "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    return write(
        folder,
        byte_level(),
        eos_token="<|im_end|>",
        added_tokens_decoder=decoder,
        chat_template=template,
    )


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "W1": lambda f: write(f, byte_level(AddedToken("[PAD]", special=False))),
    "W2": lambda f: write(
        f, byte_level(AddedToken("<|im_end|>", special=False)), eos_token="<|im_end|>"
    ),
    "W2-vocabulary": lambda f: write(f, byte_level(), eos_token="e"),
    "W5": lambda f: write(
        f, byte_level(), tokenizer_class="LlamaTokenizerFast", add_bos_token=True
    ),
    "W5-eos": lambda f: write(
        f,
        byte_level(),
        tokenizer_class="LlamaTokenizer",
        add_bos_token=False,
        add_eos_token=True,
    ),
    "W6": lambda f: write(f, sentencepiece()),
    "W7": lambda f: write(
        f,
        sentencepiece("first"),
        chat_template="{% for m in messages %}the {{ m.role }}: {{ m.content }}<|e|>{% endfor %}",
    ),
    "W8": lambda f: write(f, sentencepiece("first", [*SPECIAL, "user"])),
    "W9": _added_in_the_configuration,
    "W16": lambda f: write(
        f, with_decoder(sentencepiece("always"), decoders.ByteFallback(), decoders.Metaspace())
    ),
    "A10": lambda f: write(f, stripping()),
    "L2": lambda f: write(f, panicking()),
    "post-processor": lambda f: write(f, putting_before(700)),
}
