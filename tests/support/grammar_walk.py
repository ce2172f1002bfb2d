"""Texts that a grammar admits, chosen by chance as a model without sense would."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from penstock_router.grammar import Grammar, GrammarKind

# What ends strings, lists and calls.
CLOSERS = ('"', "}", "]", ")", ",", "<", "\n", ">", "'", "|", "/", '"}', '"]', "</", "=", "{", "[")


@dataclass
class Vocabulary:
    """A tokenizer for the router, and the same for the grammar library."""

    tokenizer: Tokenizer
    eos: int
    grammars: LLTokenizer = field(init=False)

    def __post_init__(self) -> None:
        self.grammars = LLTokenizer(self.tokenizer.to_str(), eos_token=[self.eos])
        added = self.tokenizer.get_added_tokens_decoder()
        self.added = {token.content: i for i, token in added.items()}
        self.special = frozenset(i for i, token in added.items() if token.special)
        closers = {self.tokenizer.token_to_id(closer) for closer in CLOSERS}
        self.closers = np.array(sorted({i for i in closers if i is not None} | set(added)))


def compiled(vocabulary: Vocabulary, grammar: Grammar) -> LLMatcher:
    """Raises AssertionError for a grammar that is none."""
    assert grammar.kind is GrammarKind.LARK
    matcher = LLMatcher(vocabulary.grammars, LLMatcher.grammar_from_lark(grammar.text), log_level=0)
    assert not matcher.is_error(), f"{matcher.get_error()}\n{grammar.text}"
    return matcher


def walk(
    vocabulary: Vocabulary, matcher: LLMatcher, seed: int, most: int = 600, begins: str = ""
) -> Sequence[int] | None:
    """Tokens of one text; None where it has not ended after so many. begins: how it begins, as
    chance would never spell a word."""
    chance = random.Random(seed)
    tokens = list(vocabulary.tokenizer.encode(begins, add_special_tokens=False).ids)
    assert matcher.consume_tokens(tokens), matcher.get_error()
    while len(tokens) < most:
        if matcher.is_stopped():
            return tokens
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        assert not matcher.is_error(), matcher.get_error()
        if bits[vocabulary.eos] and chance.random() < 0.2:
            return tokens
        closing = vocabulary.closers[bits[vocabulary.closers] > 0]
        closing = closing[closing != vocabulary.eos]
        if len(closing) and chance.random() < 0.5:
            token = int(chance.choice(closing))
        else:
            token = int(chance.choice(bits.nonzero()[0]))
        if token == vocabulary.eos:
            return tokens
        assert matcher.consume_token(token), matcher.get_error()
        tokens.append(token)
    return None
