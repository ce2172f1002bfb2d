"""GPT-2's alphabet, in which byte-level tokenizers spell tokens: a character for each byte."""

from __future__ import annotations


def _alphabet() -> dict[str, int]:
    """Printable Latin-1 bytes stand for themselves, the others for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_ALPHABET = _alphabet()


def spelled_bytes(spelling: str) -> bytes | None:
    """The bytes of a token; None for one that is not spelled in the alphabet."""
    try:
        return bytes(map(BYTE_ALPHABET.__getitem__, spelling))
    except KeyError:
        return None
