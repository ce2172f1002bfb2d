"""Requests as messages, and back: what fronts submit and what shards admit."""

from __future__ import annotations

from penstock_proto import request_pb2
from penstock_router.codec import TOKENS, Codec, Convert
from penstock_router.grammar import Grammar, GrammarKind
from penstock_router.request import GenerationRequest, Sampling
from penstock_router.token_rules import TokenRules

KINDS = {
    GrammarKind.JSON_SCHEMA: request_pb2.Grammar.JSON_SCHEMA,
    GrammarKind.REGEX: request_pb2.Grammar.REGEX,
    GrammarKind.LARK: request_pb2.Grammar.LARK,
}
KIND_NAMES = {number: kind for kind, number in KINDS.items()}

GRAMMAR = Codec(
    Grammar, request_pb2.Grammar, kind=Convert(KINDS.__getitem__, KIND_NAMES.__getitem__)
)
RULES = Codec(
    TokenRules,
    request_pb2.TokenRules,
    allowed=TOKENS,
    banned=Convert(
        lambda runs: [request_pb2.TokenRun(token=run) for run in runs],
        lambda runs: tuple(tuple(run.token) for run in runs),
    ),
)


def _bias(pairs: tuple[tuple[int, float], ...]) -> request_pb2.LogitBias | None:
    if not pairs:
        return None
    tokens, values = zip(*pairs, strict=True)
    return request_pb2.LogitBias(token=tokens, value=values)


SAMPLING = Codec(
    Sampling,
    request_pb2.Sampling,
    logit_bias=Convert(_bias, lambda bias: tuple(zip(bias.token, bias.value, strict=True))),
    rules=RULES.nested,
)
REQUEST = Codec(
    GenerationRequest,
    request_pb2.Request,
    prompt=TOKENS,
    sampling=SAMPLING.nested,
    grammar=GRAMMAR.nested,
)
