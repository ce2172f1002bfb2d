"""The model's tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from penstock_router.text import library
from penstock_router.text.components import components
from penstock_router.text.definition import MALFORMED, Definition, read_definition, unreadable
from penstock_router.text.guarded import Guard, Renaming
from penstock_router.text.length import LengthBound
from penstock_router.text.library import TokenizerError, TooManyTokens
from penstock_router.text.marked import MarkedText
from penstock_router.text.spans import TokenSpan

PIECE = 50_000  # characters that are encoded at a time where only the number of tokens matters
PROBABLE = 8  # characters a token, beyond which a text is probably too long


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
        self.names = definition.names
        self.special_ids = frozenset(self.special_tokens.values())
        self.bound = LengthBound(definition.tree)
        self.guard: Guard | None = None
        if template_source is not None:
            self.guard = Guard(definition.tree, template_source)

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
        except (TokenizerError, *MALFORMED) as error:
            raise unreadable(definition.path, error) from error

    def decoders(self) -> Iterator[Mapping[str, Any]]:
        """What makes text of tokens, part by part, as tokenizer.json has it."""
        return components(self.settings.get("decoder"), "decoders")

    def added_tokens(self) -> dict[int, tokenizers.AddedToken]:
        """Tokens that are found in a text before the model sees it, by id."""
        added: dict[int, tokenizers.AddedToken] = self._tokenizer.get_added_tokens_decoder()
        return added

    @property
    def control_tokens(self) -> list[str]:
        """Words that only a chat template can write."""
        return list(self.special_tokens) if self.guard is None else self.guard.control_tokens

    def vocabulary(self) -> dict[int, str]:
        """Every token as the tokenizer spells it, by id."""
        return {i: token for token, i in self._tokenizer.get_vocab(True).items()}

    def spelling(self, token_id: int) -> str | None:
        """A token as the tokenizer spells it; None: there is none."""
        spelled: str | None = self._tokenizer.id_to_token(token_id)
        return spelled

    def check_length(self, text: str, limit: int | None) -> None:
        """Raises TooManyTokens where a text has more than `limit` tokens for certain, before it is
        encoded as a whole: that takes up to 150 bytes for each of its characters.

        What looks too long is encoded piece by piece until it has twice as many. Where a piece
        ends, and where control tokens stand that turn out to be the client's, the whole text has
        other tokens, but not half as many.
        """
        if limit is None:
            return
        self.bound.check(text, limit)
        if len(text) <= max(PIECE, PROBABLE * limit):
            return
        tokens = 0
        for start in range(0, len(text), PIECE):
            piece = text[start : start + PIECE]
            tokens += len(library.encode(self._tokenizer, piece, False, places=False))
            if tokens > 2 * limit:
                raise TooManyTokens(f"at least {tokens // 2}")

    def encode(
        self, text: str, add_special_tokens: bool = True, limit: int | None = None
    ) -> list[int]:
        """Token ids. Special tokens that the text spells out become special tokens.

        Raises TooManyTokens when there are more than `limit`, and TokenizerError. Of a text of any
        length `check_length` is asked first.
        """
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
        encoding, _ = self._marked(marked, limit)
        ids: list[int] = encoding.ids
        return ids

    def spans_marked(self, marked: MarkedText) -> list[TokenSpan]:
        """The same with the characters that each token stands for."""
        return list(spans_of(*self._marked(marked, None)))

    def _marked(
        self, marked: MarkedText, limit: int | None
    ) -> tuple[tokenizers.Encoding, Renaming | None]:
        encoding, renaming = self.encoding(marked.text, False), None
        guard = self.guard
        if guard is not None and marked.client:
            found = guard.find(encoding, marked.text)
            if guard.forged(found, marked).any():
                own = guard.own(found, marked, lambda piece: self.encoding(piece, False))
                encoding, renaming = guard.encode(marked.text, own)
        if limit is not None and len(encoding) > limit:
            raise TooManyTokens(str(len(encoding)))
        return encoding, renaming

    def encoding(self, text: str, add_special_tokens: bool) -> tokenizers.Encoding:
        """What the library makes of a text, with the characters of each token."""
        return library.encode(self._tokenizer, text, add_special_tokens)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of a whole sequence of tokens."""
        return library.decode(self._tokenizer, list(ids), skip_special_tokens)


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
