"""The model's tokenizer."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import tokenizers

from penstock_router.text import library
from penstock_router.text.definition import Definition, read_definition, unreadable
from penstock_router.text.guarded import Guard, Renaming
from penstock_router.text.length import LengthBound
from penstock_router.text.library import TokenizerError, TooManyTokens
from penstock_router.text.marked import MarkedText
from penstock_router.text.spans import TokenSpan

# Noncharacters: Unicode reserves them for use inside one program, so no honest text holds them.
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class Tokenizer:
    """The tokenizer of a model folder.

    Safe to use from several threads; encoding releases the interpreter's lock.
    """

    def __init__(self, definition: Definition, template_source: str | None = None) -> None:
        """template_source: the chat template. Besides special tokens, those that it names cannot
        be written by the users of a conversation. Without one there are no conversations.

        Raises TokenizerError for a definition that the library does not take.
        """
        self._tokenizer = library.build(definition.tree)
        self._tokenizer.encode_special_tokens = definition.split_special_tokens
        self.settings = {key: part for key, part in definition.tree.items() if key != "model"}
        added = self.added_tokens()
        self.special_tokens = {t.content: i for i, t in added.items() if t.special}
        self.special_ids = frozenset(self.special_tokens.values())
        self._special_prefixes = {
            token[:length] for token in self.special_tokens for length in range(1, len(token))
        }
        self._longest_special = max(map(len, self.special_tokens), default=0)
        self._definition = definition
        self.bound = LengthBound(definition.tree)
        self.guard = Guard(definition.tree, template_source) if template_source else None

    @classmethod
    def load(
        cls, folder: Path, override: Path | None = None, template_source: str | None = None
    ) -> Tokenizer:
        """Read it. override: a tokenizer_config.json that wins over the folder's.

        Raises ValueError that names what is missing or wrong.
        """
        definition = read_definition(folder, override)
        try:
            return cls(definition, template_source)
        except TokenizerError as error:
            raise unreadable(definition.path, error) from error

    def added_tokens(self) -> dict[int, tokenizers.AddedToken]:
        """Tokens that are found in a text before the model sees it, by id."""
        added: dict[int, tokenizers.AddedToken] = self._tokenizer.get_added_tokens_decoder()
        return added

    def vocabulary(self) -> dict[int, str]:
        """Every token as the tokenizer spells it, by id."""
        return {i: token for token, i in self._tokenizer.get_vocab(True).items()}

    def encode(
        self, text: str, add_special_tokens: bool = True, limit: int | None = None
    ) -> list[int]:
        """Token ids. Special tokens that the text spells out become special tokens.

        Raises TooManyTokens when there are more than `limit`, and TokenizerError.
        """
        self.bound.check(text, limit)
        encoding = library.encode(self._tokenizer, text, add_special_tokens, places=False)
        if limit is not None and len(encoding) > limit:
            raise TooManyTokens(str(len(encoding)))
        ids: list[int] = encoding.ids
        return ids

    def spans(self, text: str, add_special_tokens: bool = True) -> list[TokenSpan]:
        """Token ids with the characters that each stands for. Raises TokenizerError."""
        return list(self.each_span(text, add_special_tokens))

    def each_span(self, text: str, add_special_tokens: bool = True) -> Iterator[TokenSpan]:
        """The same, one by one."""
        return spans_of(self.encoding(text, add_special_tokens))

    def encode_marked(self, marked: MarkedText, limit: int | None = None) -> list[int]:
        """Token ids of a rendered conversation. Control tokens are the template's alone.

        Without one that the client spells, the ids are those of `encode`, and so are the errors.
        """
        self.bound.check(marked.text, limit)
        encoding, _ = self._marked(marked)
        if limit is not None and len(encoding) > limit:
            raise TooManyTokens(str(len(encoding)))
        ids: list[int] = encoding.ids
        return ids

    def spans_marked(self, marked: MarkedText) -> list[TokenSpan]:
        """The same with the characters that each token stands for."""
        encoding, renaming = self._marked(marked)
        return list(spans_of(encoding, renaming))

    def _marked(self, marked: MarkedText) -> tuple[tokenizers.Encoding, Renaming | None]:
        encoding = self.encoding(marked.text, False)
        guard = self.guard
        if guard is None or not marked.client:
            return encoding, None
        found = guard.find(encoding, marked.text)
        if not guard.forged(found, marked).any():
            return encoding, None
        own = guard.own(found, marked, lambda piece: self.encoding(piece, False))
        return guard.encode(marked.text, own)

    def encoding(self, text: str, add_special_tokens: bool) -> tokenizers.Encoding:
        """What the library makes of a text, with the characters of each token."""
        return library.encode(self._tokenizer, text, add_special_tokens)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of a whole sequence of tokens."""
        return library.decode(self._tokenizer, list(ids), skip_special_tokens)

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
        plain = library.build(_without_first_space(self._definition.tree))
        plain.encode_special_tokens = True
        return plain


def spans_of(
    encoding: tokenizers.Encoding, renaming: Renaming | None = None
) -> Iterator[TokenSpan]:
    """The tokens of an encoding with their places in the text.

    One by one: `encoding.offsets` of a long text holds the interpreter's lock for too long.
    """
    for index, token_id in enumerate(encoding.ids):
        # What is put around a text stands nowhere in it.
        start, stop = encoding.token_to_chars(index) or (0, 0)
        if renaming is not None:
            start, stop = renaming.place(start), renaming.place(stop)
        yield TokenSpan(token_id, start, stop)


def _without_first_space(tree: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer.json that does not put a space before the first word of a text.

    The pieces between control tokens are not the beginning of the text.
    """
    settings: dict[str, Any] = orjson.loads(orjson.dumps(tree))
    pre_tokenizer = settings.get("pre_tokenizer") or {}
    for part in [pre_tokenizer, *pre_tokenizer.get("pretokenizers", ())]:
        if part.get("type") == "Metaspace" and part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
    return settings
