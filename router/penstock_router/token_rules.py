"""Which tokens a sequence may generate, whatever their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_RUN = 16  # tokens of a banned run, which a shard looks back for


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Rules of one sequence. The neutral value of each field switches it off."""

    allowed: Sequence[int] = ()  # only these
    late: tuple[int, ...] = ()  # not before `min_tokens` tokens are generated
    min_tokens: int = 0
    banned: tuple[tuple[int, ...], ...] = ()  # never one behind the other
    green_share: float = 0.0  # of the vocabulary, behind each token
    green_bias: float = 0.0
