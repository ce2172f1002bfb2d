"""A compiled grammar, in as many automata as threads may fill masks from at once.

llguidance builds an automaton lazily; a matcher's copies share it, and a lock lets one of them at a
time compute. So threads bring nothing to copies of one matcher: a grammar that many sequences are
held to is compiled several times.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor
from contextlib import suppress

from llguidance import LLMatcher

from penstock_shard.grammars.compiled import Compiled, warm
from penstock_shard.grammars.ways import CHOOSING, FORCING, Way

# Half of the cores are left to what runs beside the masks.
AUTOMATA = max(1, min(8, len(os.sched_getaffinity(0)) // 2))
MANY = 4  # copies; a grammar that hardly anybody asks for stays with one automaton
# A search for a run takes 2 to 20 us a row, while others wait for the result. So a token that has
# begun none in so many searches is not searched behind any more.
SEARCHES = 4
ALWAYS = 1 << 30
MOST_SEARCHED = 8192  # tokens of which that is remembered; none is searched behind beyond
SOON = 0.02  # seconds; what takes longer to compile is not compiled while all sequences wait


class Template:
    """Matchers of one grammar, at the beginning of a text. One thread at a time may call."""

    def __init__(self, compiled: Compiled, most: int, pool: Executor) -> None:
        self._automata = [compiled.matcher]
        self._way, self._another, self._seconds = compiled.way, compiled.another, compiled.seconds
        self._most, self._pool = most, pool
        self._copies = 0
        self._searches: dict[int, int] = {}  # left behind a token

    def matcher(self, slot: int) -> LLMatcher:
        """For a sequence in this slot."""
        self._copies += 1
        if self._copies == MANY and self._most > 1:
            self._pool.submit(self._grow, self._automata, self._way)
        return self._automata[self.home(slot)].deep_copy()

    def home(self, slot: int) -> int:
        """The automaton that a sequence in this slot should have."""
        return slot % len(self._automata)

    def may_begin_run(self, token: int) -> bool:
        """Whether it is worth a search what is forced behind this token."""
        left = self._searches.get(token, SEARCHES if len(self._searches) < MOST_SEARCHED else 0)
        return left > 0

    def learn(self, token: int, found: bool) -> None:
        """A search behind this token has found a run, or has not."""
        left = self._searches.get(token, SEARCHES)
        self._searches[token] = ALWAYS if found else left - 1

    @property
    def forces(self) -> bool:
        """Whether its matchers look for what is forced, in the bounds for that."""
        return self._way is FORCING

    def stop_forcing(self) -> bool:
        """One of its matchers has reached those bounds, which ends all that share its automaton:
        those made from here on have none. False: not yet, as that takes too long."""
        if self.forces and self._seconds <= SOON:
            self._choose()
        elif self.forces:
            self._pool.submit(self._choose)
        return not self.forces

    def _choose(self) -> None:
        with suppress(ValueError):
            self._automata, self._way, self._copies = [self._another(CHOOSING)], CHOOSING, 0

    def _grow(self, automata: list[LLMatcher], way: Way) -> None:
        """One more at a time: others' turns come between. Should one fail, those before do."""
        matcher = self._another(way)
        warm(matcher)
        automata.append(matcher)
        if len(automata) < self._most:
            self._pool.submit(self._grow, automata, way)
