"""Tokens as SentencePiece spells them: ▁ for a space, `<0xNN>` for a byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock_router.text.detokenizer import Detokenizer
from penstock_router.text.detokenizers.byte_tokens import REPLACEMENT, byte_of
from penstock_router.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a decoder of the kind that SentencePiece needs reads tokens.

    strip: spaces that the beginning of a text loses; strips_token: its first token loses all.
    """

    space: str = "▁"
    has_bytes: bool = False
    space_in_bytes: bool = False  # a space that is spelled in bytes is one too
    strip: int = 0
    strips_token: bool = False


def read_spelling(decoders: Sequence[Mapping[str, Any]]) -> Spelling | None:
    """None for decoders that do anything else.

    What strips works on each token until the tokens are one text.
    """
    spelling: dict[str, Any] = {}
    fused = False
    for decoder in decoders:
        match decoder:
            case {"type": "Replace", "pattern": {"String": space}, "content": " "}:
                if "space" in spelling or len(space) != 1:
                    return None
                spelling |= {"space": space, "space_in_bytes": "has_bytes" in spelling}
            case {"type": "Metaspace", "replacement": space}:
                if "space" in spelling or fused:
                    return None
                strips = decoder.get("prepend_scheme", "always") != "never"
                bytes_first = "has_bytes" in spelling
                spelling |= {"space": space, "strips_token": strips, "space_in_bytes": bytes_first}
            case {"type": "ByteFallback"} if "has_bytes" not in spelling and not fused:
                spelling["has_bytes"] = True
            case {"type": "Fuse"}:
                fused = True
            case {"type": "Strip", "content": " ", "start": start, "stop": 0} if fused:
                if "space" not in spelling or "strip" in spelling:
                    return None
                spelling["strip"] = start
            case _:
                return None
    return Spelling(**spelling) if "space" in spelling else None


class SentencePieceTable:
    """Pieces with ▁ for a space, and `<0xNN>` for the bytes of what the vocabulary lacks."""

    def __init__(self, tokenizer: Tokenizer, spelling: Spelling) -> None:
        vocabulary = tokenizer.vocabulary()
        self.spelling = spelling
        self.special_ids = tokenizer.special_ids
        self.texts: list[str | None] = [""] * (max(vocabulary, default=-1) + 1)
        self.bytes: dict[int, int] = {}
        for token_id, token in vocabulary.items():
            self.texts[token_id] = token.replace(spelling.space, " ")
            byte = byte_of(token) if spelling.has_bytes else None
            if byte is not None:
                self.bytes[token_id] = byte
                self.texts[token_id] = None
        for name, token_id in tokenizer.special_tokens.items():
            self.texts[token_id] = name
            self.bytes.pop(token_id, None)

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        # The space before the first word of a text is not shown; behind a prompt it is.
        return SentencePieceDetokenizer(self, not prompt or prompt[-1] in self.special_ids)

    def text(self, token_id: int) -> str:
        text = self.texts[token_id] if token_id < len(self.texts) else ""
        return bytes((self.bytes[token_id],)).decode(errors="replace") if text is None else text

    def raw(self, token_id: int) -> bytes | None:
        if token_id >= len(self.texts):
            return None
        text = self.texts[token_id]
        return bytes((self.bytes[token_id],)) if text is None else text.encode()


class SentencePieceDetokenizer:
    """See SentencePieceTable."""

    __slots__ = ("_begins", "_fast", "_pending", "_table", "_texts")

    def __init__(self, table: SentencePieceTable, begins: bool) -> None:
        """begins: no text stands before this one."""
        self._table = table
        self._texts = table.texts
        self._begins = begins and (table.spelling.strips_token or table.spelling.strip > 0)
        self._pending = b""
        self._fast = not self._begins

    def step(self, token_id: int) -> str:
        try:
            text = self._texts[token_id]
        except IndexError:  # the model's vocabulary is padded beyond the tokenizer's
            return ""
        if text is not None and (self._fast or token_id in self._table.special_ids):
            return text
        text = self.flush() + text if text is not None else self._byte(self._table.bytes[token_id])
        if self._begins and (text or not self._pending):
            text = self._begin(text)
        self._fast = not self._pending and not self._begins
        return text

    def _begin(self, text: str) -> str:
        """The first text of all without the spaces that it loses."""
        spelling = self._table.spelling
        self._begins = False
        if spelling.strips_token:
            return text.replace(" ", "")
        return text[min(spelling.strip, len(text) - len(text.lstrip(" "))) :]

    def flush(self) -> str:
        text = REPLACEMENT * len(self._pending)
        self._pending = b""
        return text

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def _byte(self, byte: int) -> str:
        """Text of the waiting bytes with one more: a character, nothing yet, or U+FFFD each."""
        self._pending += bytes((byte,))
        try:
            text = self._pending.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                return ""
            return self.flush()
        self._pending = b""
        return (
            text.replace(self._table.spelling.space, " ")
            if self._table.spelling.space_in_bytes
            else text
        )
