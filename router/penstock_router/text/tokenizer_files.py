"""The file that holds a model's tokenizer: found, bounded and read as a tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from penstock_router.text import sentencepiece, tekken
from penstock_router.text.files import token_content

# Estimates before anything is allocated; Gemma's, the largest known, has 35 MB and 1.3 million.
_MAX_BYTES = 128 << 20
_MAX_STRINGS = 3_000_000


def tokenizer_file(folder: Path) -> Path:
    """The best of the files in a model folder. Raises ValueError where there is none."""
    for name in _SOURCES:
        if (folder / name).is_file():
            return folder / name
    names = " nor ".join(_SOURCES)
    raise ValueError(f"{folder} has neither {names}. {_ADVICE}")


def read_tree(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What such a file holds, as a tokenizer.json; where another library wrote it, with the
    `names` of its tokens. Raises ValueError that says what is wrong."""
    return _SOURCES[path.name](path, config)


def _bounded_bytes(path: Path) -> bytes:
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"it has {size} bytes, and a tokenizer may have {_MAX_BYTES}")
    return path.read_bytes()


def _bounded_json(path: Path) -> dict[str, Any]:
    raw = _bounded_bytes(path)
    if (strings := raw.count(b'"') // 2) > _MAX_STRINGS:
        raise ValueError(f"it has some {strings} strings, and a tokenizer may have {_MAX_STRINGS}")
    tree = orjson.loads(raw)
    if not isinstance(tree, dict):
        raise ValueError(f"it holds a JSON {type(tree).__name__}, not an object")
    return tree


def _from_json(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    tree = _bounded_json(path)
    model = tree.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict | list) or not vocabulary:
        raise ValueError("it has no vocabulary")
    tree["added_tokens"] = list(tree.get("added_tokens") or ())
    if any(token_content(token) is None for token in tree["added_tokens"]):
        raise ValueError("an added token has no text")
    return tree


def _from_tekken(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    return tekken.tokenizer_tree(_bounded_json(path))


def _from_sentencepiece(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return sentencepiece.tokenizer_tree(_bounded_bytes(path), config)
    except ValueError as error:
        raise ValueError(f"{error}. {_ADVICE}") from error


TOKENIZER_JSON = "tokenizer.json"
_ADVICE = (
    "Where the library transformers can read the model's tokenizer, "
    "transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes "
    "a tokenizer.json"
)
# The files that a tokenizer may be in, the best one first.
_SOURCES = {
    TOKENIZER_JSON: _from_json,
    "tekken.json": _from_tekken,
    "tokenizer.model": _from_sentencepiece,
}
