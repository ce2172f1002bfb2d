"""Tokens that stand for one byte of what the vocabulary lacks: `<0xNN>`."""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"  # for bytes that are no character

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_of(spelling: str) -> int | None:
    """The byte of such a token; None for any other."""
    found = _BYTE_TOKEN.fullmatch(spelling)
    return None if found is None else int(found[1], 16)
