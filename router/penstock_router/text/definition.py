"""A model's tokenizer as its folder describes it: tokenizer.json, completed by the configuration.

The reference is what TGI served, the fast tokenizers of transformers 4: they add the tokens that
only the configuration names, and rebuild what is put around a text for some classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from penstock_router.logs import log
from penstock_router.text import sentencepiece, tekken
from penstock_router.text.files import read_json, token_content, tokenizer_config

# Estimates before anything is allocated; Gemma's, the largest known, has 35 MB and 1.3 million.
_MAX_BYTES = 128 << 20
_MAX_STRINGS = 3_000_000
MAX_TOKENS = 1 << 20

_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

# What a part of another kind than expected leads to; the library takes more than we do.
MALFORMED = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)

Token = dict[str, Any]  # content, id and flags, as in tokenizer.json


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a class of transformers puts around a text unless its configuration says otherwise."""

    bos: str
    eos: str
    add_bos: bool = True


# The classes that make their post-processor anew from add_bos_token and add_eos_token.
_FRAMES = {
    "Llama": _Frame("<s>", "</s>"),
    "CodeLlama": _Frame("<s>", "</s>"),
    "Gemma": _Frame("<bos>", "<eos>"),
    "Cohere": _Frame("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "GPTNeoX": _Frame("<|endoftext|>", "<|endoftext|>", add_bos=False),
}


@dataclass(frozen=True, slots=True)
class Definition:
    """path: the file that it was read from.
    tree: tokenizer.json with everything that its configuration adds.
    ids: of the added tokens, by content, as the library numbers them.
    names: bos_token, eos_token and so on, by name; those that the folder names.
    """

    path: Path
    tree: dict[str, Any]
    ids: Mapping[str, int]
    names: Mapping[str, str]
    split_special_tokens: bool = False

    def token_id(self, content: str) -> int | None:
        """The id of a token, by its spelling."""
        found = self.ids.get(content)
        return _vocabulary(self.tree).get(content) if found is None else found


def read_definition(folder: Path, override: Path | None = None) -> Definition:
    """The tokenizer of a model folder.

    override: a tokenizer_config.json whose entries win over those of the folder's.
    Raises ValueError that names the file and what is wrong with it.
    """
    path = _tokenizer_file(folder)
    config = read_json(folder / "tokenizer_config.json")
    if override is not None:
        config |= tokenizer_config(folder, override)
    try:
        return _read(path, config)
    except MALFORMED as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, reason: object) -> ValueError:
    """What is said of a file that holds no tokenizer."""
    return ValueError(f"{path} is not a tokenizer that can be read: {reason}")


def _read(path: Path, config: Mapping[str, Any]) -> Definition:
    tree = _SOURCES[path.name](path, config)
    decoder, named = _configured(path.parent, config)
    if path.name != _JSON:  # of what a converter made
        named = tree.pop("names") | named
    # A converted tokenizer puts nothing around a text; the models that come so want BOS.
    frame = _frame(path.parent, config) or (_FRAMES["Llama"] if path.name != _JSON else None)
    vocabulary = _vocabulary(tree)
    _check_ids(vocabulary)
    if frame is not None:
        known = vocabulary.keys() | {token["content"] for token in tree["added_tokens"]}
        defaults = {"bos_token": frame.bos, "eos_token": frame.eos}
        named = {name: token for name, token in defaults.items() if token in known} | named
    _add_tokens(tree, decoder, named)
    ids = _number(tree, vocabulary)
    _check_ids(ids)
    if frame is not None:
        tree["post_processor"] = _post_processor(frame, config, named, ids)
    _set_prefix_space(tree, config, frame)
    names = {name: content for name in _NAMES if (content := token_content(named.get(name)))}
    return Definition(path, tree, ids, names, config.get("split_special_tokens") is True)


def _tokenizer_file(folder: Path) -> Path:
    for name in _SOURCES:
        if (folder / name).is_file():
            return folder / name
    names = " nor ".join(_SOURCES)
    raise ValueError(f"{folder} has neither {names}. {_ADVICE}")


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


_JSON = "tokenizer.json"
_ADVICE = (
    "Where the library transformers can read the model's tokenizer, "
    "transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes "
    "a tokenizer.json"
)
# The files that a tokenizer may be in, the best one first.
_SOURCES = {
    _JSON: _from_json,
    "tekken.json": _from_tekken,
    "tokenizer.model": _from_sentencepiece,
}


def _vocabulary(tree: Mapping[str, Any]) -> Mapping[str, int]:
    """Ids of the model's own tokens. Unigram models list pieces with their scores."""
    entries: dict[str, int] | list[tuple[str, float]] = tree["model"]["vocab"]
    if isinstance(entries, dict):
        return entries
    return {piece: index for index, (piece, _) in enumerate(entries)}


def _configured(
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
    tokens = [named.get(name) for name in _NAMES]
    for name in ("additional_special_tokens", "extra_special_tokens"):
        more = named.get(name) or ()
        tokens += more.values() if isinstance(more, dict) else more
    return [token for token in tokens if token_content(token)]


def _add_tokens(
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


def _number(tree: dict[str, Any], vocabulary: Mapping[str, int]) -> dict[str, int]:
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


def _frame(folder: Path, config: Mapping[str, Any]) -> _Frame | None:
    kind = config.get("tokenizer_class") or read_json(folder / "config.json").get("tokenizer_class")
    if not isinstance(kind, str):
        return None
    return _FRAMES.get(kind.removesuffix("Fast").removesuffix("Tokenizer"))


def _post_processor(
    frame: _Frame, config: Mapping[str, Any], named: Mapping[str, Any], ids: Mapping[str, int]
) -> dict[str, Any]:
    """One that puts BOS before a text and EOS behind it, where the configuration says so."""

    def token(name: str, default: bool) -> list[str]:
        content = token_content(named.get(name)) or ""
        return [content] if config.get(f"add_{name}", default) and content in ids else []

    bos, eos = token("bos_token", frame.add_bos), token("eos_token", False)

    def pieces(sequence: str, kind: int) -> list[dict[str, Any]]:
        def tokens(contents: list[str]) -> list[dict[str, Any]]:
            return [{"SpecialToken": {"id": token, "type_id": kind}} for token in contents]

        return [*tokens(bos), {"Sequence": {"id": sequence, "type_id": kind}}, *tokens(eos)]

    return {
        "type": "TemplateProcessing",
        "single": pieces("A", 0),
        "pair": pieces("A", 0) + pieces("B", 1),
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (*bos, *eos)},
    }


def _set_prefix_space(
    tree: dict[str, Any], config: Mapping[str, Any], frame: _Frame | None
) -> None:
    """Whether a byte-level tokenizer puts a space before a text is the configuration's to say.

    A configuration that is silent says no, but to the classes with a frame, which have their own
    way to do so.
    """
    pre_tokenizer = tree.get("pre_tokenizer") or {}
    wanted = config.get("add_prefix_space", None if frame or not config else False)
    if pre_tokenizer.get("type") == "ByteLevel" and isinstance(wanted, bool):
        pre_tokenizer["add_prefix_space"] = wanted


def _check_ids(ids: Mapping[str, int]) -> None:
    """Tables are as long as the largest id."""
    for token, token_id in ids.items():
        if not isinstance(token_id, int) or not 0 <= token_id < MAX_TOKENS:
            raise ValueError(
                f"the token {token[:64]!r} has the id {token_id}, and ids are integers "
                f"below {MAX_TOKENS}"
            )
