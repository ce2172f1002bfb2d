"""Merges of byte-pair encoding, for files that list the tokens alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def merges_of(tokens: Iterable[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every pair that makes one of the tokens; those that come first are merged first.

    Pairs of one token are ordered by the ids of their parts.
    """
    merges: list[tuple[str, str]] = []
    for token in tokens:
        pairs = [
            (token[:cut], token[cut:])
            for cut in range(1, len(token))
            if token[:cut] in ids and token[cut:] in ids
        ]
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        merges += pairs
    return merges
