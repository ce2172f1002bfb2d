"""What is fuzzed: where inputs begin, what takes them, and how that may end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.fuzz.mutate import mutated

Mutate = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """run takes an input; what it raises beside `typed` is a finding, and so are AssertionError,
    a crash, too much time, and too much memory."""

    seeds: Sequence[bytes]
    run: Callable[[bytes], None]
    typed: tuple[type[BaseException], ...] = ()
    mutate: Mutate = mutated
    close: Callable[[], None] = lambda: None
