"""Tokens that a model's configuration adds to those of its vocabulary, and their ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock_router.logs import log
from penstock_router.text.files import read_json, token_content

NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

Token = dict[str, Any]  # content, id and flags, as in tokenizer.json


def configured_tokens(
    folder: Path, config: Mapping[str, Any]
) -> tuple[list[tuple[int, object]], dict[str, Any]]:
    """Added tokens with their ids, in their order, and the tokens that have a name.

    special_tokens_map.json counts only beside a configuration without added_tokens_decoder: newer
    ones are complete.
    """
    if "added_tokens_decoder" in config:
        decoder = config["added_tokens_decoder"] or {}
        return sorted(((int(i), token) for i, token in decoder.items()), key=_first), dict(config)
    named = dict(config) | read_json(folder / "special_tokens_map.json")
    special = {token_content(token) for token in _named_tokens(named)}
    plain = [
        (int(i), {"content": text, "special": text in special, "normalized": text not in special})
        for text, i in read_json(folder / "added_tokens.json").items()
    ]
    return sorted(plain, key=_first), named


def _first(pair: tuple[int, object]) -> int:
    return pair[0]


def _named_tokens(named: Mapping[str, Any]) -> list[object]:
    """bos, eos and so on, and those that have no name of their own."""
    tokens = [named.get(name) for name in NAMES]
    for name in ("additional_special_tokens", "extra_special_tokens"):
        more = named.get(name) or ()
        tokens += more.values() if isinstance(more, dict) else more
    return [token for token in tokens if token_content(token)]


def add_tokens(
    tree: dict[str, Any], decoder: Iterable[tuple[int, object]], named: Mapping[str, Any]
) -> None:
    """Tokens of the configuration into `added_tokens`; those that have a name are special."""
    added: dict[str, Token] = {token["content"]: token for token in tree["added_tokens"]}
    tokens = _named_tokens(named)
    for index, token in decoder:
        if content := token_content(token):
            added[content] = _token(content, token) | {"id": index}
    for token in tokens:
        content = token_content(token) or ""
        added.setdefault(content, _token(content, token))["special"] = True
    tree["added_tokens"] = list(added.values())


def _token(content: str, token: object) -> Token:
    flags = token if isinstance(token, dict) else {}
    return {"content": content} | {flag: flags.get(flag) is True for flag in _FLAGS}


def number_tokens(tree: dict[str, Any], vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Ids of the added tokens: those of the vocabulary, or the next ones behind it.

    The library takes no others, so it is said where the files name others.
    """
    ids: dict[str, int] = {}
    moved: list[str] = []
    following = len(vocabulary)
    for token in tree["added_tokens"]:
        content, named = token["content"], token.get("id")
        ids[content] = token["id"] = vocabulary.get(content, following)
        following = max(following, token["id"] + 1)
        if named not in (None, token["id"]):
            moved.append(f"{content!r} ({named}, not {token['id']})")
    if moved:
        log("WARNING", f"the tokenizer cannot give {len(moved)} tokens their ids: {moved[0]}")
    return ids
