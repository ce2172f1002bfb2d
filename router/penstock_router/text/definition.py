"""A model's tokenizer as its folder describes it: tokenizer.json, completed by the configuration.

The reference is what TGI served, the fast tokenizers of transformers 4: they add the tokens that
only the configuration names, and rebuild what is put around a text for some classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_router.text.added_tokens import NAMES, add_tokens, configured_tokens, number_tokens
from penstock_router.text.files import read_json, token_content, tokenizer_config
from penstock_router.text.post_processor import FRAMES, frame_of, post_processor, set_prefix_space
from penstock_router.text.tokenizer_files import TOKENIZER_JSON, read_tree, tokenizer_file

MAX_TOKENS = 1 << 20

# What a part of another kind than expected leads to; the library takes more than we do.
MALFORMED = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)


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
    path = tokenizer_file(folder)
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
    tree = read_tree(path, config)
    decoder, named = configured_tokens(path.parent, config)
    if path.name != TOKENIZER_JSON:  # of what a converter made
        named = tree.pop("names") | named
    # A converted tokenizer puts nothing around a text; the models that come so want BOS.
    frame = frame_of(path.parent, config) or (
        FRAMES["Llama"] if path.name != TOKENIZER_JSON else None
    )
    vocabulary = _vocabulary(tree)
    _check_ids(vocabulary)
    if frame is not None:
        known = vocabulary.keys() | {token["content"] for token in tree["added_tokens"]}
        defaults = {"bos_token": frame.bos, "eos_token": frame.eos}
        named = {name: token for name, token in defaults.items() if token in known} | named
    add_tokens(tree, decoder, named)
    ids = number_tokens(tree, vocabulary)
    _check_ids(ids)
    if frame is not None:
        tree["post_processor"] = post_processor(frame, config, named, ids)
    set_prefix_space(tree, config, frame)
    names = {name: content for name in NAMES if (content := token_content(named.get(name)))}
    return Definition(path, tree, ids, names, config.get("split_special_tokens") is True)


def _vocabulary(tree: Mapping[str, Any]) -> Mapping[str, int]:
    """Ids of the model's own tokens. Unigram models list pieces with their scores."""
    entries: dict[str, int] | list[tuple[str, float]] = tree["model"]["vocab"]
    if isinstance(entries, dict):
        return entries
    return {piece: index for index, (piece, _) in enumerate(entries)}


def _check_ids(ids: Mapping[str, int]) -> None:
    """Tables are as long as the largest id."""
    for token, token_id in ids.items():
        if not isinstance(token_id, int) or not 0 <= token_id < MAX_TOKENS:
            raise ValueError(
                f"the token {token[:64]!r} has the id {token_id}, and ids are integers "
                f"below {MAX_TOKENS}"
            )
