"""Tokens to text, one token at a time.

A table holds the text of each token, so that the common token costs one look-up. Tokens that are
not whole characters by themselves wait until their bytes complete one.

The text of a sequence equals the tokenizer's own decoding of prompt and sequence behind the
prompt. One exception, of tokenizers with `<0xNN>` byte tokens: their decoder blanks a whole run of
byte tokens when one of them is wrong, so what was sent could change later. Here the bytes that are
wrong become U+FFFD, and those before them stay.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock_router.text.alphabet import spelled_bytes
from penstock_router.text.components import components
from penstock_router.text.definition import MALFORMED
from penstock_router.text.library import TokenizerError
from penstock_router.text.tokenizer import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT = "\ufffd"


class Detokenizer(Protocol):
    """The text of one sequence."""

    def step(self, token_id: int) -> str:
        """What the token adds to the text; the name of a special token. May be empty."""

    def flush(self) -> str:
        """What an incomplete character at the end comes to."""

    @property
    def pending(self) -> bool:
        """Whether a character is incomplete, or its text may still change."""


class TokenTable(Protocol):
    """What each token stands for."""

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        """Of a sequence that continues the prompt."""

    def text(self, token_id: int) -> str:
        """A token by itself, within a text: with its space, U+FFFD for part of a character."""

    def raw(self, token_id: int) -> bytes | None:
        """Its bytes; None where they are not known."""


def token_table(tokenizer: Tokenizer) -> TokenTable:
    """Chooses by the decoder that tokenizer.json names. Raises ValueError for one that is no
    decoder."""
    try:
        return _table(tokenizer)
    except MALFORMED as error:
        raise ValueError(f"the decoder of tokenizer.json cannot be read: {error}") from error


def _table(tokenizer: Tokenizer) -> TokenTable:
    decoders = list(_decoders(tokenizer))
    kinds = [decoder.get("type") for decoder in decoders]
    if kinds in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        return ByteLevelTable(tokenizer)
    spelling = _spelling(decoders)
    return WindowTable(tokenizer) if spelling is None else SentencePieceTable(tokenizer, spelling)


def _decoders(tokenizer: Tokenizer) -> Iterator[Mapping[str, Any]]:
    return components(tokenizer.settings.get("decoder"), "decoders")


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How a decoder of the kind that SentencePiece needs reads tokens.

    strip: spaces that the beginning of a text loses; strips_token: its first token loses all.
    """

    space: str = "▁"
    has_bytes: bool = False
    space_in_bytes: bool = False  # a space that is spelled in bytes is one too
    strip: int = 0
    strips_token: bool = False


def _spelling(decoders: Sequence[Mapping[str, Any]]) -> _Spelling | None:
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
    return _Spelling(**spelling) if "space" in spelling else None


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


class SentencePieceTable:
    """Pieces with ▁ for a space, and `<0xNN>` for the bytes of what the vocabulary lacks."""

    def __init__(self, tokenizer: Tokenizer, spelling: _Spelling) -> None:
        vocabulary = tokenizer.vocabulary()
        self.spelling = spelling
        self.special_ids = tokenizer.special_ids
        self.texts: list[str | None] = [""] * (max(vocabulary, default=-1) + 1)
        self.bytes: dict[int, int] = {}
        for token_id, token in vocabulary.items():
            self.texts[token_id] = token.replace(spelling.space, " ")
            byte = _BYTE_TOKEN.fullmatch(token) if spelling.has_bytes else None
            if byte is not None:
                self.bytes[token_id] = int(byte[1], 16)
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
        text = _REPLACEMENT * len(self._pending)
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


class WindowTable:
    """Any other decoder, which alone knows what its tokens stand for."""

    _CONTEXT = 5  # tokens before a sequence that decide about its first space

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.names = {i: name for name, i in tokenizer.special_tokens.items()}
        self._decode = tokenizer.decode
        self._spellings = tokenizer.vocabulary()
        kinds = {decoder.get("type") for decoder in _decoders(tokenizer)}
        self._bytes = {
            token_id: int(byte[1], 16)
            for token_id, token in self._spellings.items()
            if "ByteFallback" in kinds and (byte := _BYTE_TOKEN.fullmatch(token))
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
        return None if text is None or _REPLACEMENT in text else text.encode()


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
        if len(self._waiting) < self._PATIENCE and (not text or text.endswith(_REPLACEMENT)):
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


def _whole_text(raw: bytes) -> str | None:
    """The text of bytes that are whole characters, else None."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
