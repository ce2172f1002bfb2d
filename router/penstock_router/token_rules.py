"""Which tokens a sequence may generate, whatever their logits."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from penstock_proto.shard_pb2 import TokenRules as WireRules
from penstock_proto.shard_pb2 import TokenRun

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


def wire_rules(rules: TokenRules | None) -> WireRules | None:
    """Rules as a message."""
    if rules is None:
        return None
    return WireRules(
        allowed=array("I", rules.allowed).tobytes(),
        late=rules.late,
        min_tokens=rules.min_tokens,
        banned=[TokenRun(token=run) for run in rules.banned],
        green_share=rules.green_share,
        green_bias=rules.green_bias,
    )


def rules_of(message: WireRules) -> TokenRules:
    """The rules in a message of `wire_rules`, to float32's precision."""
    return TokenRules(
        allowed=array("I", message.allowed) if message.allowed else (),
        late=tuple(message.late),
        min_tokens=message.min_tokens,
        banned=tuple(tuple(run.token) for run in message.banned),
        green_share=message.green_share,
        green_bias=message.green_bias,
    )
