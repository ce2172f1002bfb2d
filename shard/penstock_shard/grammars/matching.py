"""Matchers of running sequences, moved on by the tokens that were chosen.

One thread owns them all and works in the order of commands. Its turn for a step waits for the
step's tokens, takes them in, passes the result on and fills the bits for the next step, while the
device computes that step's logits. The draw of the next step waits for the turn, never for the
router.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from llguidance import LLExecutor, LLMatcher
from llguidance.numpy import fill_next_token_bitmask, fill_next_token_bitmask_par
from torch import Tensor

from penstock_kernels.mask import words_of
from penstock_proto import shard_pb2
from penstock_shard.grammars.bits import Bits
from penstock_shard.grammars.compiled import first_sentence
from penstock_shard.grammars.slowness import REASON, SLOW_TOKENS, Stopwatch
from penstock_shard.grammars.template import Template
from penstock_shard.grammars.templates import Templates

FEW = 3  # masks that one thread is done with before others wake up
LEAST_BYTES = 3  # a shorter text is hardly two tokens, and finding that out takes 12 us
# Of the time between two turns, for searches: until then nobody hears of the tokens. Runs that are
# not found are decoded one by one.
SEARCH_SHARE = 0.15
MOST_MOVED = 512  # tokens of a sequence that is moved to another automaton


@dataclass(slots=True, eq=False)
class Constraint:
    """What a sequence is held to, and how far it has come. The thread's, once made."""

    slot: int
    template: Template | None = None
    matcher: LLMatcher | None = None
    home: int = 0  # the automaton of the matcher
    forcing: bool = False  # the matcher looks for what is forced, in the bounds for that
    taken: list[int] = field(default_factory=list)  # by the matcher
    failure: str | None = None  # why it holds nothing any more
    ended: bool = False  # behind EOS, or without a token: its bits stay as they are
    runs: bool = True  # runs of forced tokens are told
    slow: int = 0  # tokens that took long
    least: int = 0  # tokens before which the text goes on, where the grammar lets it
    run: list[int] = field(default_factory=list)  # the only tokens that may come next, in order


@dataclass(slots=True)
class Turn:
    """What the thread found in the tokens of a step."""

    refused: list[shard_pb2.Refusal] = field(default_factory=list)
    forced: list[tuple[int, list[int]]] = field(default_factory=list)  # rows, tokens behind them
    seconds: float = 0.0  # of the thread's work since the turn before
    waited: float = 0.0  # by which masks held the step's draw up
    _problem: BaseException | None = None
    _done: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Until the tokens are taken in. Raises RuntimeError where that went wrong."""
        self._done.wait()
        if self._problem is not None:
            raise RuntimeError(f"matching grammars failed: {self._problem}") from self._problem

    def end(self, problem: BaseException | None) -> None:
        """The tokens are taken in, or cannot be."""
        self._problem = problem
        self._done.set()


Row = tuple[int, Constraint]  # row of a step's tokens


class Matching:
    """The matchers of one runner."""

    def __init__(self, templates: Templates, bits: Bits) -> None:
        self._templates, self._bits = templates, bits
        self._pool = LLExecutor(templates.automata)
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None
        self._seconds = self._waited = self._turned = 0.0

    @property
    def eos(self) -> frozenset[int]:
        """Tokens that end a text, where a grammar lets it end."""
        return self._templates.eos

    def admit(
        self, slot: int, grammar: int, generated: Sequence[int], runs: bool = True, least: int = 0
    ) -> Constraint:
        """A sequence that is held to a grammar and has generated some tokens begins or goes on.
        Its bits are made at once. runs: turns tell of runs of forced tokens. least: tokens before
        which it does not end unless it must."""
        constraint = Constraint(slot, runs=runs, least=least)
        self._put(lambda: self._begin(constraint, grammar, generated))
        return constraint

    def append(self, appended: Sequence[tuple[Constraint, Sequence[int]]]) -> None:
        """Sequences go on with forced tokens, behind those of the turns before."""
        self._put(lambda: self._follow(appended))

    def forget(self, grammars: Sequence[int]) -> None:
        """No admission from here on names these grammars."""
        self._put(lambda: self._templates.forget(grammars))

    def wait(self) -> None:
        """Until the bits for the next draw are filled. Raises RuntimeError where they cannot be."""
        if self._thread is None:
            return
        begun = time.perf_counter()
        done = threading.Event()
        self._put(done.set)
        done.wait()
        self._waited += time.perf_counter() - begun
        if self._problem is not None:
            raise RuntimeError(f"matching grammars failed: {self._problem}") from self._problem

    def in_order(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """With those of one automaton side by side, where a single thread takes them."""
        return tuple(sorted(rows, key=lambda row: row[1].slot % self._templates.automata))

    def turn(self, tokens: Tensor, rows: Sequence[Row]) -> Turn:
        """Take in the tokens of a step, which are on their way to the host.

        tokens: [rows of the step] int64 in host memory, complete with what the current stream has.
        """
        turn = Turn(waited=self._waited)
        self._waited = 0.0
        arrived = None
        if tokens.is_pinned():
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._put(lambda: self._take(turn, arrived, tokens, rows))
        return turn

    # -- in the thread ---------------------------------------------------------------------------

    def _put(self, task: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="masks", daemon=True)
            self._thread.start()
        self._tasks.put(task)

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                task()
            except BaseException as error:
                self._problem = self._problem or error

    def _begin(self, constraint: Constraint, grammar: int, generated: Sequence[int]) -> None:
        begun = time.perf_counter()
        constraint.template = self._templates.template(grammar)
        if constraint.template is None:
            constraint.failure = f"there is no grammar {grammar}"
        else:
            _settle(constraint, constraint.template, generated)
        self._fill([constraint])
        self._seconds += time.perf_counter() - begun

    def _follow(self, appended: Sequence[tuple[Constraint, Sequence[int]]]) -> None:
        begun = time.perf_counter()
        going_on = []
        for one, tokens in appended:
            one.run = []
            if one.ended or one.failure is not None or one.matcher is None:
                continue
            one.taken += tokens
            if not one.matcher.consume_tokens(list(tokens)):
                _fail(one)
            going_on.append(one)
        self._fill(going_on)
        self._seconds += time.perf_counter() - begun

    def _take(
        self, turn: Turn, arrived: torch.cuda.Event | None, tokens: Tensor, rows: Sequence[Row]
    ) -> None:
        problem = self._problem
        going_on: list[Row] = []
        begun = time.perf_counter()
        try:
            if arrived is not None:
                arrived.synchronize()
            begun = time.perf_counter()
            going_on = self._consume(tokens.numpy(), rows)
            turn.forced = self._look_for_runs(going_on, self._time_to_search(begun))
            turn.refused = [_refusal(one) for _, one in rows if one.failure is not None]
        except BaseException as error:
            self._problem = problem = error
        finally:
            self._seconds += time.perf_counter() - begun
            turn.seconds, self._seconds = self._seconds, 0.0
            turn.end(problem)
        begun = time.perf_counter()
        constraints = [one for _, one in going_on]
        self._fill(constraints)
        self._move_one(constraints)
        self._seconds += time.perf_counter() - begun

    def _move_one(self, constraints: Sequence[Constraint]) -> None:
        """Give a sequence that began before its grammar had all automata a matcher of its own one:
        one a turn, as that takes 2 us for each of its tokens."""
        for one in constraints:
            if one.template is None or one.failure is not None or len(one.taken) > MOST_MOVED:
                continue
            if one.home != one.template.home(one.slot):
                return _settle(one, one.template, one.taken)

    def _consume(self, tokens: np.ndarray, rows: Sequence[Row]) -> list[Row]:
        """Move matchers on. Returns those that take another token."""
        taken: list[Row] = []
        eos, chosen = self._templates.eos, tokens.tolist()
        watch = Stopwatch()
        for row, one in rows:
            if one.ended or one.failure is not None or one.matcher is None:
                continue
            token = chosen[row]
            if token < 0:  # NO_TOKEN: the sequence is refused for that
                one.ended = True
                continue
            one.ended = token in eos
            if one.run:
                del one.run[:1]
            one.taken.append(token)
            # 2 us, less than other threads take to wake up; and nobody else runs Python meanwhile.
            if not one.matcher.consume_token(token):
                _fail(one)
            elif watch.was_slow():
                one.slow += 1
                one.failure = REASON if one.slow >= SLOW_TOKENS else None
            if not one.ended:
                taken.append((row, one))
        return taken

    def _time_to_search(self, begun: float) -> float:
        """Until when the turn that has begun may search."""
        period, self._turned = begun - self._turned, begun
        return time.perf_counter() + SEARCH_SHARE * period

    def _look_for_runs(self, rows: Sequence[Row], until: float) -> list[tuple[int, list[int]]]:
        """What grammars force behind the tokens just taken, as far as it is found in time. Returns
        what the router may append."""
        forced = []
        for row, one in rows:
            if one.run or not one.forcing or one.failure is not None or one.matcher is None:
                continue
            assert one.template is not None
            if not one.template.may_begin_run(token := one.taken[-1]):
                continue
            if time.perf_counter() > until:
                break
            if len(one.matcher.compute_ff_bytes()) >= LEAST_BYTES:
                one.run = self._templates.only_known(one.matcher.compute_ff_tokens())
            one.template.learn(token, found=len(one.run) > 1)
            if one.runs and len(one.run) > 1:
                forced.append((row, list(one.run)))
        return forced

    def _fill(self, constraints: Sequence[Constraint]) -> None:
        """The bits of the tokens that may come next."""
        matchers: list[tuple[LLMatcher, int]] = []
        for one in constraints:
            if one.failure is not None or one.matcher is None:
                continue
            if one.run:
                self._bits.allow_one(one.slot, one.run[0])
            else:
                matchers.append((one.matcher, one.slot))
        rows = self._bits.rows
        words = words_of(self._templates.width)
        if words == rows.shape[1] and len(matchers) < FEW:
            for matcher, slot in matchers:
                fill_next_token_bitmask(matcher, rows, slot)
        elif matchers and words == rows.shape[1]:
            fill_next_token_bitmask_par(self._pool, matchers, rows)
        elif matchers:  # ids that only the tokenizer has
            wide = np.empty((len(rows), words), np.int32)
            fill_next_token_bitmask_par(self._pool, matchers, wide)
            for _, slot in matchers:
                rows[slot] = wide[slot, : rows.shape[1]]
        again = []
        for one in constraints:
            if one.failure is None and one.matcher is not None and one.matcher.is_error():
                _fail(one)
                if one.failure is None:
                    again.append(one)
            if one.failure is not None:
                self._bits.allow_all(one.slot)
            elif len(one.taken) < one.least:
                self._bits.hold_back(one.slot, self._templates.eos)
        if again:
            self._fill(again)


def _settle(constraint: Constraint, template: Template, taken: Sequence[int]) -> None:
    """Give a sequence a matcher of the automaton that its slot should have."""
    constraint.home, constraint.forcing = template.home(constraint.slot), template.forces
    constraint.matcher, constraint.taken = template.matcher(constraint.slot), list(taken)
    if taken and not constraint.matcher.consume_tokens(constraint.taken):
        _fail(constraint)


def _fail(constraint: Constraint) -> None:
    """Its matcher has an error. Where that may come from the bounds of forcing, its place is taken
    by one without them."""
    assert constraint.template is not None and constraint.matcher is not None
    if constraint.forcing and constraint.template.stop_forcing():
        constraint.run = []
        _settle(constraint, constraint.template, constraint.taken)
    else:
        constraint.failure = first_sentence(constraint.matcher.get_error())


def _refusal(constraint: Constraint) -> shard_pb2.Refusal:
    return shard_pb2.Refusal(
        slot=constraint.slot,
        kind=shard_pb2.Refusal.GRAMMAR_FAILED,
        message=f"the grammar of the request failed while text was generated: {constraint.failure}",
    )
