"""Copies of KV blocks that one command asks for, and which of them may be done at once."""

from __future__ import annotations

from collections.abc import Iterator


def conflict_free_batches(copies: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Copies of blocks, from and to, in parts that may be done at once: in order, and no part
    writes what it reads."""
    part: list[tuple[int, int]] = []
    read: set[int] = set()
    written: set[int] = set()
    for source, target in copies:
        if target in read or source in written or target in written:
            yield part
            part, read, written = [], set(), set()
        part.append((source, target))
        read.add(source)
        written.add(target)
    if part:
        yield part
