"""Which table of tokens a model needs: its decoder says it."""

from __future__ import annotations

from penstock_router.text.definition import MALFORMED
from penstock_router.text.detokenizer import TokenTable
from penstock_router.text.detokenizers.byte_level import ByteLevelTable
from penstock_router.text.detokenizers.sentencepiece import SentencePieceTable, read_spelling
from penstock_router.text.detokenizers.window import WindowTable
from penstock_router.text.tokenizer import Tokenizer


def token_table(tokenizer: Tokenizer) -> TokenTable:
    """Chooses by the decoder that tokenizer.json names. Raises ValueError for one that is no
    decoder."""
    try:
        return _table(tokenizer)
    except MALFORMED as error:
        raise ValueError(f"the decoder of tokenizer.json cannot be read: {error}") from error


def _table(tokenizer: Tokenizer) -> TokenTable:
    decoders = list(tokenizer.decoders())
    kinds = [decoder.get("type") for decoder in decoders]
    if kinds in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        return ByteLevelTable(tokenizer)
    spelling = read_spelling(decoders)
    return WindowTable(tokenizer) if spelling is None else SentencePieceTable(tokenizer, spelling)
