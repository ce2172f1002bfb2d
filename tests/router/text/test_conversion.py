"""Files of other libraries as tokenizers, compared with what SentencePiece itself makes of them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from penstock_router.text.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6
UNIGRAM, BPE = 1, 2


def field(number: int, value: int | float | bytes) -> bytes:
    """Of a protobuf message."""
    match value:
        case bytes():
            return varint(number << 3 | 2) + varint(len(value)) + value
        case float():
            return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    head = bytes((value & 0x7F | 0x80 * (value > 0x7F),))
    return head if value < 0x80 else head + varint(value >> 7)


def model(kind: int, pieces: list[tuple[str, float, int]], **normalizer: int) -> bytes:
    numbers = {"dummy_prefix": 3, "remove_spaces": 4}
    written = [
        field(1, field(1, text.encode()) + field(2, score) + field(3, type_))
        for text, score, type_ in pieces
    ]
    spec = b"".join(field(numbers[name], value) for name, value in normalizer.items())
    return b"".join(written) + field(2, field(3, kind)) + field(3, spec)


SPECIAL = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
BYTES = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
LETTERS = [(letter, -9.0, NORMAL) for letter in "▁a<0x41>b"]
WORDS = [("▁a", -1.0, NORMAL), ("<im>", 0.0, USER)]
PIECES = SPECIAL + BYTES + LETTERS + WORDS
IDS = {text: i for i, (text, _, _) in enumerate(PIECES)}


def load(folder: Path, raw: bytes) -> Tokenizer:
    (folder / "tokenizer.model").write_bytes(raw)
    return Tokenizer.load(folder)


@pytest.mark.parametrize("kind", [UNIGRAM, BPE])
@pytest.mark.parametrize(
    ("normalizer", "text", "pieces"),
    [
        ({}, "  a  a ", ["▁a", "▁a"]),
        ({"remove_spaces": 0}, "a  a", ["▁a", "▁", "▁a"]),
        ({"remove_spaces": 0, "dummy_prefix": 0}, "a a", ["a", "▁a"]),
        ({"remove_spaces": 0}, "\n", ["▁", "<0x0A>"]),
        ({"remove_spaces": 0}, "a<0x41>", ["▁a", "<", "0", "x", "4", "1", ">"]),
        ({"remove_spaces": 0}, "a<im>", ["▁a", "<im>"]),
        ({"remove_spaces": 0}, "aé", ["▁a", "<0xC3>", "<0xA9>"]),
    ],
)
def test_sentencepiece(
    tmp_path: Path, kind: int, normalizer: dict[str, int], text: str, pieces: list[str]
) -> None:
    tokenizer = load(tmp_path, model(kind, PIECES, **normalizer))
    assert tokenizer.encode(text) == [1, *(IDS[piece] for piece in pieces)]
    assert tokenizer.names["eos_token"] == "</s>"
    assert "<im>" not in tokenizer.special_tokens


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 99,
        model(3, PIECES),
        model(UNIGRAM, PIECES)[:-400],
        field(1, b"\x0a\xff\xff\xff\xff\x0f"),
        field(2, 7),
    ],
)
def test_what_is_no_model(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(ValueError, match="tokenizer.model is not a tokenizer.*SentencePiece model"):
        load(tmp_path, raw)
