"""Stop sequences: strings of the text that end it."""

from __future__ import annotations

import functools
from collections.abc import Sequence


class StopMatcher:
    """Finds the first stop sequence of a text that comes in pieces.

    One Knuth-Morris-Pratt automaton a sequence: each character is looked at once, whatever the
    pieces are, and the state of an automaton is at the same time how much of the text's end may
    still become a stop sequence.
    """

    __slots__ = ("_failures", "_sequences", "_states", "found", "matched")

    def __init__(self, sequences: Sequence[str]) -> None:
        """sequences: not empty strings."""
        self._sequences = sequences
        self._failures = [_failure_table(sequence) for sequence in sequences]
        self._states = [0] * len(sequences)
        self.matched = 0  # characters of the stop sequence that was found
        self.found = ""  # which

    @property
    def held(self) -> int:
        """Characters at the end of the text that may be the beginning of a stop sequence."""
        return max(self._states, default=0)

    def feed(self, text: str) -> int | None:
        """Where in `text` the first stop sequence ends; None while there is none."""
        if not any(self._states) and not any(s[0] in text for s in self._sequences):
            return None
        for position, character in enumerate(text):
            for i, sequence in enumerate(self._sequences):
                state = self._states[i]
                failures = self._failures[i]
                while state and sequence[state] != character:
                    state = failures[state - 1]
                if sequence[state] == character:
                    state += 1
                self._states[i] = state
                if state == len(sequence):
                    if state > self.matched:
                        self.matched, self.found = state, sequence
                    self._states[i] = failures[state - 1]
            if self.matched:
                return position + 1
        return None


@functools.lru_cache(maxsize=64)  # a request of 128 sequences has one set of stop sequences
def _failure_table(sequence: str) -> list[int]:
    """For each prefix of the sequence: length of its longest border."""
    table = [0] * len(sequence)
    length = 0
    for i in range(1, len(sequence)):
        while length and sequence[i] != sequence[length]:
            length = table[length - 1]
        if sequence[i] == sequence[length]:
            length += 1
        table[i] = length
    return table
