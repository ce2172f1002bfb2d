"""Drives the scheduler and the shards, and tells the listeners what came out.

The loop has no task of its own: submissions, cancellations and results each lead to `_pump`, which
keeps PLANS_AHEAD commands under way, so that the shards never wait for Python. Behind a long step
the second is sent shortly before it is needed (`pace`), and takes in what arrives until then.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque

from penstock_proto.shard_pb2 import StepResult
from penstock_router import wire
from penstock_router.deadlines import Deadlines
from penstock_router.engine_stats import EngineStats
from penstock_router.grammar import Grammar
from penstock_router.grammars import Grammars
from penstock_router.health import Health
from penstock_router.instruments import End
from penstock_router.limits import ServerLimits
from penstock_router.metrics import Metrics
from penstock_router.pace import Pace
from penstock_router.prompt_logprobs import PromptLogprobs
from penstock_router.request import (
    Aborted,
    Draining,
    EngineError,
    FinishReason,
    GenerationFailed,
    GenerationRequest,
    Listener,
    Refused,
    ShuttingDown,
)
from penstock_router.scheduler import Outcome, Scheduler, Sequence, StepPlan
from penstock_router.shard_client import ShardFailure, ShardGroup
from penstock_router.shard_refusals import Refusals

# Commands under way: one runs, one waits on the device, or is made later where the first is long.
PLANS_AHEAD = 2
TIMER_SECONDS = 0.001  # an alarm may ring so early: uvloop rounds to milliseconds


class Engine:
    """Runs requests to their end. All methods belong to the event loop's thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        shards: ShardGroup,
        limits: ServerLimits,
        metrics: Metrics,
        step_timeout: float,
    ) -> None:
        self.limits = limits
        # A step that takes ten times the longest one at start has not merely been slow.
        self.health = Health(max(step_timeout, 10 * limits.prefill_seconds), self._on_failure)
        self._scheduler = scheduler
        self._shards = shards
        self._metrics = metrics
        self._stats = EngineStats(scheduler, metrics)
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[StepPlan] = deque()
        self._pace = Pace()
        self._alarm: asyncio.TimerHandle | None = None  # rings when a command held back is due
        self._progress_at = time.monotonic()
        self._pump_due = False
        self._prompts = PromptLogprobs()
        self._refusals = Refusals(scheduler, metrics)
        self._grammars = Grammars(shards.compile, metrics.grammars)
        self._deadlines = Deadlines(self._expire)
        self._withdrawn = False
        self._draining = False
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._quiet = asyncio.Event()
        shards.on_result = self._on_result
        shards.on_failure = self._on_failure
        shards.on_trouble = self.health.note_silent_shard

    def start(self) -> None:
        """Open the streams to the shards."""
        self._shards.start()
        self._stats.load()
        self.health.start(self._awaited_step, self._metrics.on_lag)

    @property
    def trouble(self) -> str:
        """Why nothing would be generated now; empty while the shards live, answer and get on."""
        return self.health.trouble

    @property
    def withdrawn(self) -> bool:
        """Whether requests should go elsewhere because the server is about to end."""
        return self._withdrawn

    @property
    def draining(self) -> bool:
        """Whether new requests are turned away because the server is about to end."""
        return self._draining

    async def prepare(self, grammar: Grammar) -> None:
        """Have a grammar compiled before a request with it is submitted.

        Raises BadGrammar, GrammarsBusy, and GenerationFailed when the shards are gone.
        """
        self.health.check()
        await self._grammars.prepare(grammar)

    def submit(self, request: GenerationRequest, listener: Listener) -> int:
        """Queue a request; its number is for `cancel`.

        Raises Draining while draining and GenerationFailed when the shards are gone.
        """
        self.health.check()
        if self._draining:
            raise Draining("The server is shutting down")
        held = (0, ()) if request.grammar is None else self._grammars.hold(request.grammar)
        sequence = self._scheduler.submit(request, time.monotonic(), listener, *held)
        self._deadlines.start(sequence)
        self._stats.submitted(sequence)
        self._pump_soon()
        return sequence.id

    def cancel(self, request_id: int) -> int:
        """End a request without a word to its listener. Its blocks are free for the next plan.
        How many tokens it had generated; 0 after its end."""
        sequence = self._scheduler.cancel(request_id)
        if sequence is None:
            return 0
        self._forget(sequence)
        self._metrics.on_given_up("abort")
        self._pump_soon()
        return sequence.generated

    def abort(self, name: str | None) -> None:
        """End requests of that name, or of a batch of that name, or all (None); their listeners
        are told."""
        for sequence in self._scheduler.named(name):
            self._scheduler.finish(sequence)
            self._fail(sequence, Aborted("The request was aborted"), "abort")
            self._pump_soon()

    async def empty_cache(self) -> bool:
        """Forget all cached prefixes. False, and nothing is done, where anything runs or waits."""
        return self.flush_cache()

    def flush_cache(self) -> bool:
        """The same at once."""
        done = self._scheduler.forget_prefixes()
        self._stats.load()
        return done

    def stop(self, request_id: int, generated: int) -> None:
        """End a request whose text was complete with its `generated`th token, for a listener that
        could not say so when it got it; harmless after its end."""
        if sequence := self._scheduler.cancel(request_id):
            self._finish(sequence, FinishReason.STOP, time.monotonic(), generated)
            self._pump_soon()

    def withdraw(self) -> None:
        """Let whoever looks send requests elsewhere; those that come are taken."""
        self._withdrawn = True

    async def drain(self, timeout: float) -> bool:
        """Turn new requests away and let the others end; False if `timeout` ended some of them."""
        self._withdrawn = self._draining = True
        self._quiet.clear()
        self._pump_soon()
        try:
            await asyncio.wait_for(self._quiet.wait(), timeout)
            return True
        except TimeoutError:
            self.health.failure = GenerationFailed("The server has shut down")
            self._end_all(ShuttingDown(f"The server shut down; it waited {timeout:g} s"))
            return False

    def give_up(self, reason: str) -> None:
        """Fail all requests, and those that are still to come."""
        if self.health.failure is None:
            self.health.failure = GenerationFailed(reason)
            self._end_all(self.health.failure)
            self._quiet.set()  # nothing is left that a drain could wait for

    # -- plans out -------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        """Plan when this turn of the loop is over, so that a burst of requests makes one plan."""
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        if self.health.failure is not None:
            return
        try:
            self._plan_ahead()
        except Exception as error:  # ours: the event loop would pass over it, and all would wait
            logging.getLogger(__name__).exception("a step could not be planned")
            self._on_failure(ShardFailure(f"the router could not plan a step: {error!r}"))

    def _plan_ahead(self) -> None:
        while len(self._under_way) < PLANS_AHEAD:
            now = time.monotonic()
            if self._under_way and self._hold_back(now):
                break
            plan = self._scheduler.plan(now)
            if plan is None:
                break
            self._stats.planned(plan, now)
            if not self._under_way:
                self._progress_at = now
                self.health.progress()
            command = wire.command(plan)
            command.forget_grammar.extend(self._grammars.pop_forgotten())
            self._shards.send(command)
            self._under_way.append(plan)
            self._prompts.note(plan)
            self._stats.load()
        self._settle()

    def _hold_back(self, now: float) -> bool:
        """Whether the next command has time yet; then `_pump` is called when it is due.

        A step that ends sooner than expected has its result pump, with nothing under way: the
        device idles for one command's way, and the step is known to be shorter.
        """
        # The step that runs began when the one before it ended, or when it was sent.
        spare = self._progress_at + self._pace.slack(self._under_way[0]) - now
        if spare < TIMER_SECONDS:
            return False
        if self._alarm is not None:  # that of an earlier step, maybe, and too late for this one
            self._alarm.cancel()
        self._alarm = self._loop.call_later(spare, self._pump)
        return True

    def _settle(self) -> None:
        if self._draining and self._scheduler.idle:
            self._quiet.set()

    def _awaited_step(self) -> int | None:
        return self._under_way[0].step if self._under_way else None

    # -- results in ------------------------------------------------------------------------------

    def _on_result(self, result: StepResult) -> None:
        if self.health.failure is not None:
            return
        now = self._progress_at = time.monotonic()
        self.health.progress()
        try:
            refused = self._refusals.take(result)
            outcomes = self._commit(result)
        except ValueError as error:
            return self._on_failure(ShardFailure(f"shard 0: {error}"))
        taking = time.monotonic() - now
        plan = self._under_way[0]
        self._account(plan, result)
        self._pump()
        begin = time.monotonic()
        self._deliver(outcomes, result, now)
        self._metrics.on_tokens(bool(plan.chunked), taking, time.monotonic() - begin)
        for sequence, reason in refused:
            self._fail(sequence, Refused(reason), "error")
        if self._deadlines.passed:
            self._deadlines.expire_waiting()
        if self._scheduler.idle:
            self._stats.load()
        self._settle()

    def _commit(self, result: StepResult) -> list[Outcome]:
        # Lists: protobuf's own take 0.2 us for each look at a token.
        forced = {one.row: one.token for one in result.forced}
        seconds = result.device_ns * 1e-9
        return self._scheduler.commit(result.step, list(result.token), seconds, forced)

    def _account(self, plan: StepPlan, result: StepResult) -> None:
        """Take in what a result says beside its tokens; `plan` is what the step was of."""
        seconds = result.device_ns * 1e-9
        if result.step == plan.last_step:
            self._under_way.popleft()
        self._pace.learn(plan, seconds)
        self._refusals.learn(plan, result)
        self._stats.stepped(plan, result, seconds)
        self._prompts.take(result)

    def _deliver(self, outcomes: list[Outcome], result: StepResult, now: float) -> None:
        logprobs, ranks = result.logprob, result.rank
        tops = {top.row: list(zip(top.token, top.logprob, strict=True)) for top in result.top}
        late = self._deadlines.passed
        for outcome in outcomes:
            sequence = outcome.sequence
            listener = sequence.listener
            if listener is None:
                continue
            if sequence.first_token_at is None:
                self._on_first_token(sequence, listener, now)
            row, reason = outcome.row, outcome.finish
            logprob, top = logprobs[row] if logprobs else math.nan, tops.get(row, ())
            rank = ranks[row] if ranks else 0
            left = len(outcome.tokens)  # to be delivered
            stop = False
            for token in outcome.tokens:
                left -= 1
                if stop := listener.token(token, logprob, top, rank):
                    break
            if reason is None and (stop or sequence.id in late):
                self._scheduler.finish(sequence)
                reason = FinishReason.LENGTH
            if stop and (left or reason is not FinishReason.EOS):
                reason = FinishReason.STOP
            if reason is not None:
                self._finish(sequence, reason, now, sequence.generated - left)

    def _on_first_token(self, sequence: Sequence, listener: Listener, now: float) -> None:
        sequence.first_token_at = now
        self._metrics.on_first_token(now - sequence.arrival)
        if (scores := self._prompts.pop(sequence)) is not None:
            listener.prompt(scores.logprobs, scores.tops or (), scores.ranks)

    # -- ends ------------------------------------------------------------------------------------

    def _finish(self, sequence: Sequence, reason: FinishReason, now: float, generated: int) -> None:
        """A sequence has ended as its request asked."""
        if (listener := self._forget(sequence)) is not None:
            listener.finish(self._stats.finished(sequence, reason, now, generated))

    def _fail(self, sequence: Sequence, error: EngineError, end: End) -> None:
        """A sequence has ended otherwise. end: what the metrics call that."""
        self._metrics.on_given_up(end)
        if (listener := self._forget(sequence)) is not None:
            listener.fail(error)

    def _forget(self, sequence: Sequence) -> Listener | None:
        """Nothing is kept for a sequence that has ended. Its listener, which is to hear of it."""
        self._prompts.pop(sequence)
        self._deadlines.forget(sequence)
        if sequence.grammar and sequence.request.grammar is not None:
            self._grammars.drop(sequence.request.grammar)
            sequence.grammar = 0
        listener, sequence.listener = sequence.listener, None
        return listener

    def _expire(self, sequence: Sequence) -> None:
        """Its time was up before it ran again."""
        self._scheduler.finish(sequence)
        self._finish(sequence, FinishReason.LENGTH, time.monotonic(), sequence.delivered)
        self._pump_soon()

    def _on_failure(self, failure: ShardFailure) -> None:
        if self.health.failure is not None:
            return
        self._metrics.on_step_failure()
        self.give_up(str(failure))
        if not self.failed.done():
            self.failed.set_exception(failure)

    def _end_all(self, error: EngineError) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        for sequence in self._scheduler.end_all():
            self._fail(sequence, error, "error")
