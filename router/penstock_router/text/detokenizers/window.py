"""Tokens of any other decoder, which alone knows what they stand for."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_router.text.detokenizer import Detokenizer
from penstock_router.text.detokenizers.byte_tokens import REPLACEMENT, byte_of
from penstock_router.text.library import TokenizerError
from penstock_router.text.tokenizer import Tokenizer


class WindowTable:
    """Any other decoder, which alone knows what its tokens stand for."""

    _CONTEXT = 5  # tokens before a sequence that decide about its first space

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.names = {i: name for name, i in tokenizer.special_tokens.items()}
        self._decode = tokenizer.decode
        self._spellings = tokenizer.vocabulary()
        kinds = {decoder.get("type") for decoder in tokenizer.decoders()}
        self._bytes = {
            token_id: byte
            for token_id, token in self._spellings.items()
            if "ByteFallback" in kinds and (byte := byte_of(token)) is not None
        }
        self._texts = self._within_a_text() | self.names

    def decode(self, ids: Sequence[int]) -> str:
        """Where the library fails, the tokens as they are spelled: what reads this may not fail."""
        try:
            return self._decode(ids)
        except TokenizerError:
            return "".join(self._spellings.get(token_id, "") for token_id in ids)

    def _within_a_text(self) -> dict[int, str]:
        """Every token behind another one, where it keeps its space."""
        ordinary = [i for i in self._spellings if i not in self.names and i not in self._bytes]
        before = next((i for i in ordinary if self.decode([i]).isalnum()), None)
        if before is None:
            return {}
        length = len(self.decode([before]))
        return {i: self.decode([before, i])[length:] for i in ordinary}

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        start = max(len(prompt) - self._CONTEXT, 0)
        while start and prompt[start] in self._bytes and len(prompt) - start < 64:
            start -= 1  # a run of byte tokens is decoded from its beginning
        return WindowDetokenizer(self, [i for i in prompt[start:] if i not in self.names])

    def text(self, token_id: int) -> str:
        if token_id in self._bytes:
            return bytes((self._bytes[token_id],)).decode(errors="replace")
        return self._texts.get(token_id, "")

    def raw(self, token_id: int) -> bytes | None:
        if token_id in self._bytes:
            return bytes((self._bytes[token_id],))
        text = self._texts.get(token_id)
        return None if text is None or REPLACEMENT in text else text.encode()


class WindowDetokenizer:
    """Decodes a short window twice and keeps the difference.

    The window begins where text was shown, never within a character, so the cost of a token does
    not grow with the sequence.
    """

    _CONTEXT = 5  # tokens of the window that were shown
    _PATIENCE = 16  # tokens that may wait for the rest of a character

    def __init__(self, table: WindowTable, before: list[int]) -> None:
        """before: tokens at the end of the prompt."""
        self._table = table
        self._shown = [before]  # in the groups that were shown together
        self._waiting: list[int] = []

    def step(self, token_id: int) -> str:
        if token_id in self._table.names:
            return self._table.names[token_id]
        self._waiting.append(token_id)
        text = self._new_text()
        if len(self._waiting) < self._PATIENCE and (not text or text.endswith(REPLACEMENT)):
            return ""
        self._advance()
        return text

    def flush(self) -> str:
        text = self._new_text()
        self._advance()
        return text

    @property
    def pending(self) -> bool:
        return bool(self._waiting)

    def _new_text(self) -> str:
        shown = [token for group in self._shown for token in group]
        before = self._table.decode(shown)
        return self._table.decode(shown + self._waiting)[len(before) :]

    def _advance(self) -> None:
        self._shown.append(self._waiting)
        self._waiting = []
        while sum(map(len, self._shown[1:])) >= self._CONTEXT:
            del self._shown[0]
