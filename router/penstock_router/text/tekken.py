"""Mistral's `tekken.json`, a list of byte sequences, as a tokenizer.json."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from penstock_router.text.alphabet import BYTE_ALPHABET
from penstock_router.text.merges import merges_of

# Files before version 7 do not list their special tokens. Ids without one are fillers.
_SPECIAL = [
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
]
_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def tokenizer_tree(tekken: Mapping[str, Any]) -> dict[str, Any]:
    """What tokenizer.json would hold. Raises ValueError for a file that is none of Mistral's."""
    try:
        config = tekken["config"]
        special = _special_tokens(tekken)
        count = int(config["default_vocab_size"]) - len(special)
        letters = {byte: letter for letter, byte in BYTE_ALPHABET.items()}
        tokens = [
            "".join(map(letters.__getitem__, base64.b64decode(entry["token_bytes"])))
            for entry in tekken["vocab"][:count]
        ]
        pattern = str(config["pattern"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ValueError("it is no tekken.json of Mistral's") from error
    ids = {token: len(special) + rank for rank, token in enumerate(tokens)}
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": token, **flags, "special": True} for i, token in enumerate(special)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(special)} | ids,
            "merges": merges_of(tokens, ids),
            "ignore_merges": True,
        },
        "names": {name: token for name, token in _NAMES.items() if token in special},
    }


def _special_tokens(tekken: Mapping[str, Any]) -> list[str]:
    """By id."""
    listed = tekken.get("special_tokens")
    named = sorted(listed, key=lambda token: token["rank"]) if listed else []
    special = [str(token["token_str"]) for token in named] or _SPECIAL
    count = int(tekken["config"].get("default_num_special_tokens") or len(special))
    return special + [f"<SPECIAL_{i}>" for i in range(len(special), count)]
