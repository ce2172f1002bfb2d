"""Compiled grammars, by the router's ids.

llguidance matches them. An automaton is built lazily, and copies share it: so each is warmed by a
short walk before a request gets a copy, and masks cost a fifth of what they would.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from functools import partial

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from penstock_proto import shard_pb2
from penstock_shard.grammars.template import AUTOMATA, Template

THREADS = 2
COMPILE_SECONDS = 2.0  # until the client hears; a compile cannot be stopped
WARM_SECONDS, WARM_STEPS = 0.02, 256
LONGEST_ERROR = 300  # characters
# Where all tokens of a slice may come next, their bits are set without a walk through them. Most
# patterns allow short lower-case words, a seventh of a vocabulary; how long they may still become
# differs from place to place (12 slices instead of 3: 53 -> 42 us a mask of `[a-z]{3,12}`).
WORDS = [rf"[a-z]{{1,{most}}}" for most in range(1, 13)]
SLICES = [*WORDS, *LLTokenizer.general_slices()]

_Grammar = shard_pb2.Grammar
_FORMS: dict[int, Callable[[str], str]] = {
    _Grammar.JSON_SCHEMA: LLMatcher.grammar_from_json_schema,
    _Grammar.REGEX: LLMatcher.grammar_from_regex,
    _Grammar.LARK: LLMatcher.grammar_from_lark,
}


class Templates:
    """Those of one model. Any thread may call."""

    def __init__(self, vocab_size: int, automata: int = AUTOMATA) -> None:
        self._vocab_size = vocab_size
        self.automata = automata  # of a grammar that many ask for
        self._tokenizer: LLTokenizer | None = None
        self._problem = "the tokenizer is still being read"
        self._templates: dict[int, Template] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, "grammars")
        self._growing = ThreadPoolExecutor(1, "automata")
        self._late = 0
        self.eos: frozenset[int] = frozenset()

    @property
    def late(self) -> int:
        """Compiles that nobody waits for any more and that still run."""
        return self._late

    @property
    def width(self) -> int:
        """Tokens of a mask: the model's rows, and more where the tokenizer has more ids."""
        return self._vocab_size if self._tokenizer is None else self._tokenizer.vocab_size

    def load(self, definition: str, eos: Iterable[int]) -> str:
        """Take a tokenizer.json and the ids after which a text ends. Returns why there are no
        grammars with them, or nothing."""
        tokenizer, problem = self._read(definition, sorted(eos))
        if tokenizer is not None:
            self.eos = frozenset(tokenizer.eos_tokens)
            self._tokenizer = tokenizer
        self._problem = problem
        return problem

    def _read(self, definition: str, eos: Sequence[int]) -> tuple[LLTokenizer | None, str]:
        if not eos:
            return None, "the model names no token that ends a text"
        problem: object = ""
        for rows in (self._vocab_size, None):  # of a tokenizer with more ids than the model has
            try:
                tokenizer = LLTokenizer(
                    definition, n_vocab=rows, eos_token=list(eos), slices=SLICES
                )
                return tokenizer, ""
            except ValueError as error:
                problem = error
        return None, f"the model's tokenizer has a form that grammars cannot use: {problem}"

    def compile(self, request: shard_pb2.CompileRequest) -> shard_pb2.CompileResponse:
        """Make a template, or say why there is none, in COMPILE_SECONDS."""
        begun = time.perf_counter()
        outcome, error, opening = self._outcome(request)
        seconds = time.perf_counter() - begun
        return shard_pb2.CompileResponse(
            outcome=outcome, error=error, seconds=seconds, forced=opening
        )

    def only_known(self, tokens: list[int]) -> list[int]:
        """Tokens up to the first one that the model has no logit for."""
        unknown = (place for place, token in enumerate(tokens) if token >= self._vocab_size)
        return tokens[: next(unknown, len(tokens))]

    def _outcome(
        self, request: shard_pb2.CompileRequest
    ) -> tuple[shard_pb2.CompileResponse.Outcome, str, list[int]]:
        """With the reason, and the tokens that all texts begin with."""
        outcomes = shard_pb2.CompileResponse
        if self._tokenizer is None:
            return outcomes.REFUSED, self._problem, []
        compiled = partial(_compiled, self._tokenizer, request.grammar)
        future = self._pool.submit(compiled)
        try:
            first = future.result(COMPILE_SECONDS)
        except NotInTime:
            if future.cancel():
                return outcomes.BUSY, "", []
            self._count_late(future)
            return outcomes.TOO_SLOW, f"compiling it takes more than {COMPILE_SECONDS:g} s", []
        except ValueError as error:
            return outcomes.REFUSED, str(error), []
        opening = self.only_known(first.deep_copy().compute_ff_tokens())
        with self._lock:
            self._templates[request.id] = Template(first, compiled, self.automata, self._growing)
        return outcomes.READY, "", opening

    def _count_late(self, future: Future[LLMatcher]) -> None:
        def ended(_: Future[LLMatcher]) -> None:
            with self._lock:
                self._late -= 1

        with self._lock:
            self._late += 1
        future.add_done_callback(ended)

    def template(self, grammar: int) -> Template | None:
        """What matchers of a grammar are copied from; None where it is not known."""
        with self._lock:
            return self._templates.get(grammar)

    def forget(self, grammars: Iterable[int]) -> None:
        """No sequence begins with these any more."""
        with self._lock:
            for grammar in grammars:
                self._templates.pop(grammar, None)


def _compiled(tokenizer: LLTokenizer, grammar: shard_pb2.Grammar) -> LLMatcher:
    """Raises ValueError with a sentence."""
    try:
        form = _FORMS[grammar.kind](grammar.text)
    except ValueError as error:
        raise ValueError(first_sentence(str(error))) from None
    matcher = LLMatcher(tokenizer, form, log_level=0, limits=LLParserLimits(verbose_errors=False))
    if matcher.is_error():
        raise ValueError(first_sentence(matcher.get_error()))
    _warm(matcher)
    return matcher


def _warm(template: LLMatcher) -> None:
    """Visit states, along a few texts. Raises ValueError where there is no text at all."""
    walker = template.deep_copy()
    chance = random.Random(0)
    until = time.perf_counter() + WARM_SECONDS
    for _ in range(WARM_STEPS):
        tokens = walker.compute_ff_tokens()
        if not tokens:
            bits = np.unpackbits(
                np.frombuffer(walker.compute_bitmask(), np.uint8), bitorder="little"
            )
            if walker.is_error():
                raise ValueError(first_sentence(walker.get_error()))
            tokens = [int(chance.choice(bits.nonzero()[0]))]
        consumed = walker.consume_tokens(tokens)
        if walker.is_error():
            raise ValueError(first_sentence(walker.get_error()))
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
