"""Compiled grammars, by the router's ids."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime

from llguidance import LLTokenizer

from penstock_proto import shard_pb2
from penstock_shard.grammars.compiled import Compiled, compiled
from penstock_shard.grammars.template import AUTOMATA, Template
from penstock_shard.grammars.ways import CHOOSING, FORCING

THREADS = 2
COMPILE_SECONDS = 2.0  # until the client hears; a compile cannot be stopped
# Where all tokens of a slice may come next, their bits are set without a walk through them. Most
# patterns allow short lower-case words, a seventh of a vocabulary; how long they may still become
# differs from place to place (12 slices instead of 3: 53 -> 42 us a mask of `[a-z]{3,12}`).
WORDS = [rf"[a-z]{{1,{most}}}" for most in range(1, 13)]
SLICES = [*WORDS, *LLTokenizer.general_slices()]


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
        ways = (CHOOSING,) if request.forces_much else (FORCING, CHOOSING)
        future = self._pool.submit(compiled, self._tokenizer, request.grammar, ways)
        try:
            made = future.result(COMPILE_SECONDS)
        except NotInTime:
            if future.cancel():
                return outcomes.BUSY, "", []
            self._count_late(future)
            return outcomes.TOO_SLOW, f"compiling it takes more than {COMPILE_SECONDS:g} s", []
        except ValueError as error:
            return outcomes.REFUSED, str(error), []
        opening = self.only_known(made.matcher.deep_copy().compute_ff_tokens())
        with self._lock:
            self._templates[request.id] = Template(made, self.automata, self._growing)
        return outcomes.READY, "", opening

    def _count_late(self, future: Future[Compiled]) -> None:
        def ended(_: Future[Compiled]) -> None:
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
