"""Tokens in GPT-2's alphabet, of which every character stands for one byte."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from penstock_router.text.alphabet import spelled_bytes
from penstock_router.text.detokenizer import Detokenizer
from penstock_router.text.tokenizer import Tokenizer


class ByteLevelTable:
    """GPT-2's alphabet: every character of a token's spelling stands for one byte."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary = tokenizer.vocabulary()
        size = max(vocabulary, default=-1) + 1
        self.special_ids = tokenizer.special_ids
        self.texts: list[str | None] = [""] * size
        self.bytes: dict[int, bytes] = {}
        for token_id, spelling in vocabulary.items():
            raw = spelled_bytes(spelling)
            if raw is None:  # an added token is spelled as it reads
                raw = spelling.encode()
            self.bytes[token_id] = raw
            self.texts[token_id] = _whole_text(raw)
        for name, token_id in tokenizer.special_tokens.items():
            self.texts[token_id] = name

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        return ByteLevelDetokenizer(self)

    def text(self, token_id: int) -> str:
        text = self.texts[token_id] if token_id < len(self.texts) else ""
        return self.bytes[token_id].decode(errors="replace") if text is None else text

    def raw(self, token_id: int) -> bytes | None:
        if token_id in self.special_ids:
            return self.text(token_id).encode()
        return self.bytes.get(token_id)


class ByteLevelDetokenizer:
    """See ByteLevelTable."""

    __slots__ = ("_decoder", "_pending", "_table", "_texts")

    def __init__(self, table: ByteLevelTable) -> None:
        self._table = table
        self._texts = table.texts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = False

    def step(self, token_id: int) -> str:
        try:
            text = self._texts[token_id]
        except IndexError:  # the model's vocabulary is padded beyond the tokenizer's
            return ""
        if text is not None and (not self._pending or token_id in self._table.special_ids):
            return text
        text = self._decoder.decode(self._table.bytes.get(token_id, b""))
        self._pending = bool(self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        self._pending = False
        return self._decoder.decode(b"", final=True)

    @property
    def pending(self) -> bool:
        return self._pending


def _whole_text(raw: bytes) -> str | None:
    """The text of bytes that are whole characters, else None."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
