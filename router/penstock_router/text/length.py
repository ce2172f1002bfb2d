"""How few tokens a text can come to, known before it is tokenised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_router.text.alphabet import BYTE_ALPHABET
from penstock_router.text.components import components
from penstock_router.text.library import TooManyTokens

# How much shorter a normalizer may make a text, in bytes. Those that are not here may drop any
# length of it.
_SHRINKS = {
    "ByteLevel": 1.0,
    "Prepend": 1.0,
    "NFC": 4.0,  # a Greek vowel with its marks, or a syllable of three Korean letters
    "NFD": 3.0,  # the sign of the kelvin becomes K
    "NFKC": 12.0,  # the same after 𝐚 has become a
    "NFKD": 4.0,
    "Lowercase": 3.0,
}
_KEEP_ALL = {"ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "UnicodeScripts"}


class LengthBound:
    """See the module. For tokenizers that may drop characters it bounds nothing."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        """tree: tokenizer.json."""
        added = tree["added_tokens"]
        vocabulary = tree["model"]["vocab"]
        tokens = vocabulary if isinstance(vocabulary, dict) else [piece for piece, _ in vocabulary]
        contents = [token["content"] for token in added]
        # A token that is found after normalizing may take the space before it along.
        self._longest = max(len(token.encode()) for token in (*tokens, *contents)) + 1
        self._swallows_spaces = any(token["lstrip"] or token["rstrip"] for token in added)
        normalizer = tree.get("normalizer")
        self._shrinks = _shrinks(normalizer)
        self._shrinks_ascii = _shrinks(normalizer, dict.fromkeys(_SHRINKS, 1.0))
        self._known = self._shrinks > 0 and _keeps_all(tree, set(tokens))

    def check(self, text: str, limit: int | None) -> None:
        """Raises TooManyTokens where a text has more than `limit` tokens for certain."""
        if limit is not None and len(text) > limit and (few := self.fewest_tokens(text)) > limit:
            raise TooManyTokens(f"at least {few}")

    def fewest_tokens(self, text: str) -> int:
        """No tokenisation of the text has less."""
        if not self._known:
            return 0
        if self._swallows_spaces:
            text = "".join(text.split())
        if text.isascii():
            return int(len(text) / self._shrinks_ascii / self._longest)
        return int(len(text.encode(errors="replace")) / self._shrinks / self._longest)


def _shrinks(normalizer: Mapping[str, Any] | None, known: Mapping[str, float] = _SHRINKS) -> float:
    """How many times shorter a normalizer may make a text; 0: any number of times."""
    product = 1.0
    for part in components(normalizer, "normalizers"):
        match part:
            case {"type": "Replace", "pattern": {"String": old}, "content": new} if new:
                product *= max(1.0, len(old.encode()) / len(new.encode()))
            case {"type": kind}:
                product *= known.get(kind, 0.0)
    return product


def _keeps_all(tree: Mapping[str, Any], tokens: set[str]) -> bool:
    """Whether every byte of a text is in one of its tokens."""
    parts = list(components(tree.get("pre_tokenizer"), "pretokenizers"))
    for part in parts:
        if part.get("type") not in _KEEP_ALL or part.get("behavior") == "Removed":
            return False
    model = tree["model"]
    if model.get("type") not in ("BPE", "Unigram"):
        return False
    parts += components(tree.get("normalizer"), "normalizers")
    if any(part.get("type") == "ByteLevel" for part in parts):
        return set(BYTE_ALPHABET) <= tokens
    bytes_known = all(f"<0x{byte:02X}>" in tokens for byte in range(256))
    return model.get("byte_fallback") is True and bytes_known
