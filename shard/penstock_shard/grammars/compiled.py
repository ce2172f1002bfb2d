"""How one grammar is compiled.

llguidance matches it. An automaton is built lazily, and copies share it: so each is warmed by a
short walk before a request gets a copy, and masks cost a fifth of what they would.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from penstock_proto import shard_pb2
from penstock_shard.grammars.ways import CHOOSING, FORCING, MOST_OPENING, ExhaustedError, Way

WARM_SECONDS, WARM_STEPS = 0.02, 256
WARM_RUN = 64  # tokens of a run, in one of these steps
LONGEST_ERROR = 300  # characters
# Of the library's errors: what more fuel for compiling may help, and what forces less may.
OUT_OF_FUEL = re.compile("too big|fuel")
EXHAUSTED = re.compile("Too many items|too many expressions|too many states")

_Grammar = shard_pb2.Grammar
_FORMS: dict[int, Callable[[str], str]] = {
    _Grammar.JSON_SCHEMA: LLMatcher.grammar_from_json_schema,
    _Grammar.REGEX: LLMatcher.grammar_from_regex,
    _Grammar.LARK: LLMatcher.grammar_from_lark,
}


@dataclass(frozen=True)
class Compiled:
    """A grammar's first matcher, at the beginning of a text."""

    matcher: LLMatcher
    way: Way
    another: Callable[[Way], LLMatcher]  # raises ValueError
    seconds: float  # that it took, without its walk


def compiled(
    tokenizer: LLTokenizer, grammar: shard_pb2.Grammar, ways: Sequence[Way] = (FORCING, CHOOSING)
) -> Compiled:
    """Compile a grammar, in the first of these ways that does. Raises ValueError with a
    sentence."""
    try:
        form = _FORMS[grammar.kind](grammar.text)
    except ValueError as error:
        raise ValueError(first_sentence(str(error))) from None
    another = partial(_matcher, tokenizer, form)
    for way in ways[:-1]:
        with suppress(ExhaustedError):
            return _warmed(another, way)
    return _warmed(another, ways[-1])


def _warmed(another: Callable[[Way], LLMatcher], way: Way) -> Compiled:
    begun = time.perf_counter()
    matcher = another(way)
    seconds = time.perf_counter() - begun
    warm(matcher)
    return Compiled(matcher, way, another, seconds)


def _matcher(tokenizer: LLTokenizer, form: str, way: Way) -> LLMatcher:
    """Raises ValueError with a sentence."""
    for limits in way.limits:
        matcher = LLMatcher(tokenizer, way.form(form), log_level=0, limits=limits)
        if not OUT_OF_FUEL.search(matcher.get_error()):
            break
    if matcher.is_error():
        raise ValueError(first_sentence(matcher.get_error()))
    _mask(matcher)
    if way is FORCING and len(matcher.compute_ff_bytes()) > MOST_OPENING:
        raise ExhaustedError(f"all its texts begin with more than {MOST_OPENING} equal bytes")
    return matcher


def _mask(matcher: LLMatcher) -> bytes:
    """Its bits. What is forced is found on the way, without the interpreter's lock, and copies
    have it. Raises ValueError."""
    bits: bytes = matcher.compute_bitmask()
    _check(matcher)
    return bits


def _check(matcher: LLMatcher) -> None:
    """Raises ValueError with a sentence, ExhaustedError where it reached its bounds."""
    if matcher.is_error():
        error = first_sentence(matcher.get_error())
        raise ExhaustedError(error) if EXHAUSTED.search(error) else ValueError(error)


def warm(template: LLMatcher) -> None:
    """Visit states, along a few texts. Raises ValueError where there is none."""
    walker = template.deep_copy()
    chance = random.Random(0)
    until = time.perf_counter() + WARM_SECONDS
    for _ in range(WARM_STEPS):
        bits = _mask(walker)
        tokens = walker.compute_ff_tokens()[:WARM_RUN]
        if not tokens:
            allowed = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").nonzero()[0]
            tokens = [int(chance.choice(allowed))]
        consumed = walker.consume_tokens(tokens)
        _check(walker)
        if not consumed or walker.is_stopped():
            walker = template.deep_copy()
        if time.perf_counter() > until:
            return


def first_sentence(error: str) -> str:
    """What a client is told: without the excerpts that follow, and without lists of what exists."""
    lines = [line.strip() for line in error.splitlines()]
    reasons = [line for line in lines[1:] if line.startswith("error: ")]
    sentence = "; ".join([lines[0].split("; following ")[0], *reasons[:1]]) if lines else ""
    return sentence[:LONGEST_ERROR]
