"""The model's tokenizer."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import tokenizers

# Noncharacters: Unicode reserves them for use inside one program, so no honest text holds them.
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """A token of a text, and the characters start..stop of the text that it stands for."""

    id: int
    start: int
    stop: int


class Tokenizer:
    """`tokenizer.json` of a model folder.

    Safe to use from several threads; encoding releases the interpreter's lock.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(
                f"{path} does not exist: the model folder needs a fast tokenizer. "
                "transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder) "
                "writes one"
            )
        self._serialised = path.read_bytes()
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(self._serialised)
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{path} is not a tokenizer that can be read: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_tokens = {t.content: i for i, t in added.items() if t.special}
        self.special_ids = frozenset(self.special_tokens.values())
        self._special_prefixes = {
            token[:length] for token in self.special_tokens for length in range(1, len(token))
        }
        self._longest_special = max(map(len, self.special_tokens), default=0)

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """tokenizer.json as an object, without its vocabulary."""
        settings: dict[str, Any] = orjson.loads(self._serialised)
        settings.pop("model", None)
        return settings

    def vocabulary(self) -> dict[int, str]:
        """Every token as the tokenizer spells it, by id."""
        return {i: token for token, i in self._tokenizer.get_vocab(True).items()}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids. Special tokens that the text spells out become special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def spans(self, text: str, add_special_tokens: bool = True) -> list[TokenSpan]:
        """Token ids with the characters that each stands for."""
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return [
            TokenSpan(i, *offsets)
            for i, offsets in zip(encoding.ids, encoding.offsets, strict=True)
        ]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of a whole sequence of tokens."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    # A chat template writes control tokens as text, and users write text that may look like them.
    # Before rendering, `disarm` breaks each special token in the users' text with a mark; after it
    # `encode_disarmed` knows the template's own special tokens from the users' by that mark.

    def mark_for(self, texts: Iterable[str]) -> str:
        """A character that none of the texts holds. Raises ValueError when there is none."""
        taken: set[str] = set()
        for text in texts:
            taken |= set(text) & set(_MARKS)
        for mark in _MARKS:
            if mark not in taken:
                return mark
        raise ValueError("the messages hold every one of the noncharacters U+FDD0 to U+FDEF")

    def disarm(self, text: str, mark: str) -> str:
        """The text with `mark` after the first character of each special token in it.

        So is the beginning of a special token at the end of the text, which the next text might
        complete.
        """
        if not self.special_tokens:
            return text
        text = self._special_pattern.sub(lambda m: m[0][0] + mark + m[0][1:], text)
        for length in range(min(self._longest_special - 1, len(text)), 0, -1):
            if text[-length:] in self._special_prefixes:
                return text[:-length] + text[-length] + mark + text[len(text) - length + 1 :]
        return text

    def encode_disarmed(self, text: str, mark: str) -> list[int]:
        """Token ids of a rendered template: special tokens where it is not broken by a mark."""
        if mark not in text:
            return self.encode(text, add_special_tokens=False)
        return [span.id for span in self.spans_disarmed(text, mark)]

    def spans_disarmed(self, text: str, mark: str) -> list[TokenSpan]:
        """The same with the characters of the text without marks that each token stands for."""
        if mark not in text:
            return self.spans(text, add_special_tokens=False)
        spans: list[TokenSpan] = []
        start = 0
        for piece in self._split_specials(text):
            plain = piece.replace(mark, "")
            if piece in self.special_tokens:
                spans.append(TokenSpan(self.special_tokens[piece], start, start + len(piece)))
            else:
                encoding = self._plain.encode(plain, add_special_tokens=False)
                pairs = zip(encoding.ids, encoding.offsets, strict=True)
                spans += [TokenSpan(i, start + first, start + last) for i, (first, last) in pairs]
            start += len(plain)
        return spans

    def _split_specials(self, text: str) -> Iterator[str]:
        """The text cut around its special tokens."""
        position = 0
        for match in self._special_pattern.finditer(text):
            yield text[position : match.start()]
            yield match[0]
            position = match.end()
        yield text[position:]

    @functools.cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The tokenizer that takes special tokens for text. A copy, because the switch is global:
        made when the first such text comes, for it costs half a second at 128k tokens."""
        plain = tokenizers.Tokenizer.from_buffer(_without_first_space(self._serialised))
        plain.no_truncation()
        plain.no_padding()
        plain.encode_special_tokens = True
        return plain


def _without_first_space(serialised: bytes) -> bytes:
    """tokenizer.json that does not put a space before the first word of a text.

    The pieces between control tokens are not the beginning of the text.
    """
    settings = orjson.loads(serialised)
    pre_tokenizer = settings.get("pre_tokenizer") or {}
    for part in [pre_tokenizer, *pre_tokenizer.get("pretokenizers", ())]:
        if part.get("type") == "Metaspace" and part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
    return orjson.dumps(settings)
