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
from collections.abc import Sequence
from typing import Any, Protocol

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


class DetokenizerFactory(Protocol):
    def __call__(self, prompt: Sequence[int]) -> Detokenizer: ...


def detokenizer_factory(tokenizer: Tokenizer) -> DetokenizerFactory:
    """Chooses by the decoder that tokenizer.json names."""
    decoders = _decoders(tokenizer.settings.get("decoder"))
    kinds = {decoder.get("type") for decoder in decoders}
    if kinds == {"ByteLevel"}:
        return ByteLevelTable(tokenizer).detokenizer
    if _is_sentencepiece(decoders):
        return SentencePieceTable(tokenizer, decoders).detokenizer
    return lambda prompt: WindowDetokenizer(tokenizer, prompt)


def _decoders(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    return list(decoder["decoders"]) if decoder.get("type") == "Sequence" else [decoder]


def _is_sentencepiece(decoders: list[dict[str, Any]]) -> bool:
    for decoder in decoders:
        match decoder:
            case {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}:
                pass
            case {"type": "ByteFallback" | "Fuse"}:
                pass
            case {"type": "Strip", "content": " ", "stop": 0}:
                pass
            case _:
                return False
    return any(decoder["type"] == "Replace" for decoder in decoders)


class ByteLevelTable:
    """GPT-2's alphabet: every character of a token's spelling stands for one byte."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary = tokenizer.vocabulary()
        size = max(vocabulary, default=-1) + 1
        self.special_ids = tokenizer.special_ids
        self.texts: list[str | None] = [""] * size
        self.bytes: dict[int, bytes] = {}
        alphabet = _byte_alphabet()
        for token_id, spelling in vocabulary.items():
            try:
                raw = bytes(alphabet[character] for character in spelling)
            except KeyError:  # an added token is spelled as it reads
                raw = spelling.encode()
            self.bytes[token_id] = raw
            self.texts[token_id] = _whole_text(raw)
        for name, token_id in tokenizer.special_tokens.items():
            self.texts[token_id] = name

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        return ByteLevelDetokenizer(self)


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

    def __init__(self, tokenizer: Tokenizer, decoders: list[dict[str, Any]]) -> None:
        kinds = {decoder["type"] for decoder in decoders}
        vocabulary = tokenizer.vocabulary()
        self.strip = max((d.get("start", 0) for d in decoders if d["type"] == "Strip"), default=0)
        self.special_ids = tokenizer.special_ids
        self.texts: list[str | None] = [""] * (max(vocabulary, default=-1) + 1)
        self.bytes: dict[int, int] = {}
        for token_id, spelling in vocabulary.items():
            self.texts[token_id] = spelling.replace("▁", " ")
            byte = _BYTE_TOKEN.fullmatch(spelling) if "ByteFallback" in kinds else None
            if byte is not None:
                self.bytes[token_id] = int(byte[1], 16)
                self.texts[token_id] = None
        for name, token_id in tokenizer.special_tokens.items():
            self.texts[token_id] = name
            self.bytes.pop(token_id, None)

    def detokenizer(self, prompt: Sequence[int]) -> Detokenizer:
        # The space before the first word of a text is not shown; behind a prompt it is.
        starts_text = not prompt or prompt[-1] in self.special_ids
        return SentencePieceDetokenizer(self, self.strip if starts_text else 0)


class SentencePieceDetokenizer:
    """See SentencePieceTable."""

    __slots__ = ("_fast", "_pending", "_strip", "_table", "_texts")

    def __init__(self, table: SentencePieceTable, strip: int) -> None:
        self._table = table
        self._texts = table.texts
        self._strip = strip  # spaces that may still be dropped from the beginning
        self._pending = b""
        self._fast = not strip

    def step(self, token_id: int) -> str:
        try:
            text = self._texts[token_id]
        except IndexError:  # the model's vocabulary is padded beyond the tokenizer's
            return ""
        if text is not None and (self._fast or token_id in self._table.special_ids):
            return text
        text = self.flush() + text if text is not None else self._byte(self._table.bytes[token_id])
        if self._strip and text:
            stripped = text.lstrip(" ")
            text = text[min(self._strip, len(text) - len(stripped)) :]
            self._strip = 0
        self._fast = not self._pending and not self._strip
        return text

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
        return text


class WindowDetokenizer:
    """Any other decoder: decodes a short window twice and keeps the difference.

    The window begins at the last text that was shown, so the cost of a token does not grow with
    the sequence.
    """

    _CONTEXT = 5  # tokens before the sequence that decide about its first space

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._names = {i: name for name, i in tokenizer.special_tokens.items()}
        self._shown = [i for i in prompt[-self._CONTEXT :] if i not in tokenizer.special_ids]
        self._waiting: list[int] = []

    def step(self, token_id: int) -> str:
        if token_id in self._names:
            return self._names[token_id]
        self._waiting.append(token_id)
        text = self._new_text()
        if not text or text.endswith(_REPLACEMENT):
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
        before = self._tokenizer.decode(self._shown)
        return self._tokenizer.decode(self._shown + self._waiting)[len(before) :]

    def _advance(self) -> None:
        self._shown, self._waiting = (self._shown + self._waiting)[-self._CONTEXT :], []


def _whole_text(raw: bytes) -> str | None:
    """The text of bytes that are whole characters, else None."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's map: printable Latin-1 bytes stand for themselves, the others for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + i): byte for i, byte in enumerate(others)}
