"""A SentencePiece model, `tokenizer.model`, as a tokenizer.json.

Read without the library: the file is a protobuf message of which a dozen fields matter.
"""

from __future__ import annotations

import base64
import enum
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock_router.text.merges import merges_of


class _Kind(enum.IntEnum):
    """Of a piece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    score: float
    kind: _Kind


# Numbers of fields in sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_KIND = 1, 2, 3
_MODEL_TYPE, _UNK_ID, _BOS_ID, _EOS_ID, _PAD_ID = 3, 40, 41, 42, 43
_CHARSMAP, _DUMMY_PREFIX, _REMOVE_SPACES = 2, 3, 4
_UNIGRAM, _BPE = 1, 2
_SPACE = "▁"


def tokenizer_tree(raw: bytes, config: Mapping[str, Any]) -> dict[str, Any]:
    """What tokenizer.json would hold. config: tokenizer_config.json.

    Raises ValueError for a file that is no such model, or one of words or characters.
    """
    try:
        model = dict[int, Any]({_TRAINER: b"", _NORMALIZER: b""})
        model |= {number: value for number, value in _fields(raw) if number != _PIECES}
        pieces = [_piece(value) for number, value in _fields(raw) if number == _PIECES]
        trainer, normalizer = dict(_fields(model[_TRAINER])), dict(_fields(model[_NORMALIZER]))
    except (IndexError, struct.error, TypeError, ValueError) as error:
        raise ValueError("it is no SentencePiece model") from error
    unknown = trainer.get(_UNK_ID, 0)
    if not pieces or not 0 <= unknown < len(pieces):
        raise ValueError("it is no SentencePiece model")
    prefix = normalizer.get(_DUMMY_PREFIX, 1) != 0 and config.get("add_prefix_space") is not False
    legacy = config.get("legacy") is not False
    return {
        "version": "1.0",
        "added_tokens": _added(pieces, unknown),
        "normalizer": _normalizer(normalizer, prefix, legacy),
        "pre_tokenizer": None if legacy else _pre_tokenizer(prefix),
        "post_processor": None,
        "decoder": _decoder(prefix),
        "model": _model(trainer.get(_MODEL_TYPE, _UNIGRAM), pieces, unknown),
    } | {"names": _names(trainer, pieces)}


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message's fields; messages and texts as bytes."""
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        match key & 7:
            case 0:
                value, position = _varint(raw, position)
                yield key >> 3, value
            case 2:
                length, position = _varint(raw, position)
                if position + length > len(raw):
                    raise ValueError("a field is longer than its message")
                yield key >> 3, raw[position : position + length]
                position += length
            case 5:
                yield key >> 3, struct.unpack_from("<f", raw, position)[0]
                position += 4
            case 1:
                position += 8
            case kind:
                raise ValueError(f"there is no field of the kind {kind}")


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """A number and the position behind it."""
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _piece(raw: bytes) -> _Piece:
    fields = dict(_fields(raw))
    text, score = fields[_PIECE_TEXT].decode(), fields.get(_PIECE_SCORE, 0.0)
    return _Piece(text, score, _Kind(fields.get(_PIECE_KIND, _Kind.NORMAL)))


def _names(trainer: Mapping[int, int], pieces: list[_Piece]) -> dict[str, str]:
    """bos_token and so on. An absent id is a default; the largest number means none."""
    ids = {
        "unk_token": trainer.get(_UNK_ID, 0),
        "bos_token": trainer.get(_BOS_ID, 1),
        "eos_token": trainer.get(_EOS_ID, 2),
        "pad_token": trainer.get(_PAD_ID, len(pieces)),
    }
    return {name: pieces[i].text for name, i in ids.items() if i < len(pieces)}


def _added(pieces: list[_Piece], unknown: int) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": i, "content": piece.text, **flags, "special": piece.kind is not _Kind.USER_DEFINED}
        for i, piece in enumerate(pieces)
        if i == unknown or piece.kind in (_Kind.CONTROL, _Kind.USER_DEFINED)
    ]


def _normalizer(spec: Mapping[int, Any], prefix: bool, legacy: bool) -> dict[str, Any] | None:
    parts: list[dict[str, Any]] = []
    if charsmap := spec.get(_CHARSMAP):
        encoded = base64.b64encode(charsmap).decode()
        parts.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if spec.get(_REMOVE_SPACES, 1):
        parts.append({"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""})
        parts.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if legacy:
        parts += [{"type": "Prepend", "prepend": _SPACE}] if prefix else []
        parts.append({"type": "Replace", "pattern": {"String": " "}, "content": _SPACE})
    return {"type": "Sequence", "normalizers": parts} if parts else None


def _pre_tokenizer(prefix: bool) -> dict[str, Any]:
    scheme = "first" if prefix else "never"
    return {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": scheme, "split": False}


def _decoder(prefix: bool) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        parts.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": parts}


def _model(kind: int, pieces: list[_Piece], unknown: int) -> dict[str, Any]:
    byte_fallback = any(piece.kind is _Kind.BYTE for piece in pieces)
    if kind == _UNIGRAM:
        found = (_Kind.NORMAL, _Kind.USER_DEFINED)
        # The other pieces stand for no text that spells them, so every other spelling is better.
        worst = min((piece.score for piece in pieces if piece.kind in found), default=0.0) - 1000
        return {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": [(p.text, p.score if p.kind in found else worst) for p in pieces],
            "byte_fallback": byte_fallback,
        }
    if kind != _BPE:
        raise ValueError("it is a SentencePiece model of words or characters")
    ids = {piece.text: i for i, piece in enumerate(pieces)}
    merged = [piece for piece in pieces if piece.kind is _Kind.NORMAL]
    merged.sort(key=lambda piece: -piece.score)
    return {
        "type": "BPE",
        "vocab": ids,
        "merges": merges_of((piece.text for piece in merged), ids),
        "unk_token": pieces[unknown].text,
        "fuse_unk": True,
        "byte_fallback": byte_fallback,
    }
