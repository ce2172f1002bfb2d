"""Drives the scheduler and the shards, and tells the listeners what came out.

The loop has no task of its own: submissions, cancellations and results each lead to `_pump`, which
keeps PLANS_AHEAD commands under way, so that the shards never wait for Python. Behind a long step
the second is sent shortly before it is needed (`pace`), and takes in what arrives until then.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from penstock_proto.shard_pb2 import Refusal, StepResult
from penstock_router import wire
from penstock_router.deadlines import Deadlines
from penstock_router.grammar import Grammar
from penstock_router.grammars import Grammars
from penstock_router.limits import ServerLimits
from penstock_router.logs import log
from penstock_router.metrics import Metrics
from penstock_router.pace import Pace
from penstock_router.prompt_logprobs import PromptLogprobs
from penstock_router.pulse import Pulse
from penstock_router.request import (
    Aborted,
    Draining,
    EngineError,
    Finish,
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
WATCH_SECONDS = 0.5
WATCHES = 8  # at least, in the time that a step may take
STALLED = 4  # a step is called late after this part of the time after which it is called dead


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
        self._scheduler = scheduler
        self._shards = shards
        self._metrics = metrics
        # A step that takes ten times the longest one at start has not merely been slow.
        self._step_timeout = max(step_timeout, 10 * limits.prefill_seconds)
        self._stall_seconds = self._step_timeout / STALLED
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[StepPlan] = deque()
        self._pace = Pace()
        self._alarm: asyncio.TimerHandle | None = None  # rings when a command held back is due
        self._preemptions = 0
        self._progress_at = time.monotonic()
        self._pump_due = False
        self._prompts = PromptLogprobs()
        self._refusals = Refusals(metrics)
        self._grammars = Grammars(shards.compile, metrics.grammars)
        self._deadlines = Deadlines(self._expire)
        self._withdrawn = False
        self._draining = False
        self._failure: GenerationFailed | None = None
        self._trouble = ""  # of the shards' answers
        self._stall = ""  # of the step under way
        self._silence = 0.0  # seconds in which a result of a step under way was listened for
        self._watch: Pulse | None = None
        self.on_trouble: Callable[[str], None] = lambda reason: None
        self.on_overdue: Callable[[], None] = lambda: None  # when a step is late, and when too late
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._quiet = asyncio.Event()
        shards.on_result = self._on_result
        shards.on_failure = self._on_failure
        shards.on_trouble = self._on_trouble

    def start(self) -> None:
        """Open the streams to the shards."""
        self._shards.start()
        self._show_load()
        period = min(WATCH_SECONDS, self._step_timeout / WATCHES)
        self._watch = Pulse(period, self._look)

    @property
    def trouble(self) -> str:
        """Why nothing would be generated now; empty while the shards live, answer and get on."""
        return str(self._failure) if self._failure else self._trouble or self._stall

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
        if self._failure is not None:
            raise self._failure
        await self._grammars.prepare(grammar)

    def submit(self, request: GenerationRequest, listener: Listener) -> int:
        """Queue a request; its number is for `cancel`.

        Raises Draining while draining and GenerationFailed when the shards are gone.
        """
        if self._failure is not None:
            raise self._failure
        if self._draining:
            raise Draining("The server is shutting down")
        held = (0, ()) if request.grammar is None else self._grammars.hold(request.grammar)
        sequence = self._scheduler.submit(request, time.monotonic(), listener, *held)
        self._metrics.grammars.on_forced(len(sequence.opening))
        self._deadlines.start(sequence)
        self._metrics.on_submit(len(request.prompt), request.max_new_tokens)
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
            self._metrics.on_given_up("abort")
            if (listener := self._forget(sequence)) is not None:
                listener.fail(Aborted("The request was aborted"))
            self._pump_soon()

    async def empty_cache(self) -> bool:
        """Forget all cached prefixes. False, and nothing is done, where anything runs or waits."""
        return self.flush_cache()

    def flush_cache(self) -> bool:
        """The same at once."""
        done = self._scheduler.forget_prefixes()
        self._show_load()
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
            self._failure = GenerationFailed("The server has shut down")
            self._end_all(ShuttingDown(f"The server shut down; it waited {timeout:g} s"))
            return False

    # -- plans out -------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        """Plan when this turn of the loop is over, so that a burst of requests makes one plan."""
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        if self._failure is not None:
            return
        while len(self._under_way) < PLANS_AHEAD:
            now = time.monotonic()
            if self._under_way and self._hold_back(now):
                break
            plan = self._scheduler.plan(now)
            if plan is None:
                break
            if plan.admit:
                self._metrics.on_join(time.monotonic() - now)
            if not self._under_way:
                self._progress_at = now
                self._silence = 0.0
            command = wire.command(plan)
            command.forget_grammar.extend(self._grammars.pop_forgotten())
            self._shards.send(command)
            self._under_way.append(plan)
            self._note(plan, now)
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

    def _note(self, plan: StepPlan, now: float) -> None:
        for seat in plan.admit:
            sequence = seat.sequence
            if sequence.wants_prompt_logprobs:
                self._prompts.expect(sequence)
            if sequence.admitted_at == now:
                wait = now - sequence.arrival
                self._metrics.on_admit(wait, sequence.cached_tokens, len(sequence.request.prompt))
        self._prompts.note(plan)
        self._show_load()

    def _show_load(self) -> None:
        scheduler, metrics = self._scheduler, self._metrics
        blocks = scheduler.blocks
        if scheduler.preemptions > self._preemptions:
            metrics.on_preemption(scheduler.preemptions - self._preemptions)
            self._preemptions = scheduler.preemptions
        metrics.on_queue(scheduler.waiting)
        metrics.on_running(scheduler.running, scheduler.running_tokens)
        metrics.on_blocks(blocks.used, blocks.cache.evictable, blocks.total)

    # -- results in ------------------------------------------------------------------------------

    def _on_result(self, result: StepResult) -> None:
        if self._failure is not None:
            return
        now = self._progress_at = time.monotonic()
        self._silence = 0.0
        if self._stall:
            self._on_stall("")
        seconds = result.device_ns * 1e-9
        try:
            refused = self._refuse(result)
            # A list: protobuf's own takes 0.2 us for each look at a token.
            forced = {one.row: one.token for one in result.forced}
            outcomes = self._scheduler.commit(result.step, list(result.token), seconds, forced)
        except ValueError as error:
            return self._on_failure(ShardFailure(f"shard 0: {error}"))
        taking = time.monotonic() - now
        plan = self._under_way[0]
        self._pace.learn(plan, seconds)
        if result.step == plan.last_step:
            self._under_way.popleft()
        self._metrics.grammars.on_step(result)
        self._metrics.grammars.on_forced(plan.run_tokens - len(plan.runs))
        self._metrics.on_step(plan.chunked, plan.rows - len(plan.decode), len(plan.decode), seconds)
        self._prompts.take(result)
        self._pump()
        begin = time.monotonic()
        self._deliver(outcomes, result, now)
        self._metrics.on_tokens(bool(plan.chunked), taking, time.monotonic() - begin)
        self._fail_refused(refused)
        if self._deadlines.passed:
            self._deadlines.expire_waiting()
        if self._scheduler.idle:
            self._show_load()
        self._settle()

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

    def _refuse(self, result: StepResult) -> list[tuple[Sequence, Refusal]]:
        """End the sequences that a result refuses. Raises ValueError as `Scheduler.refuse` does."""
        ended = []
        for refusal in result.refused:
            broken = refusal.kind == Refusal.NOT_A_NUMBER
            sequence = self._scheduler.refuse(result.step, refusal.slot, broken)
            if sequence is not None:
                ended.append((sequence, refusal))
        if any(refusal.kind == Refusal.OUT_OF_MEMORY for refusal in result.refused):
            self._shrink()
        return ended

    def _shrink(self) -> None:
        """The step whose result is taken in did not fit in the shards' memory."""
        room = self._scheduler.room
        if room.shrink(self._under_way[0]):
            log(
                "WARNING",
                "a step did not fit in memory: from here on steps are smaller",
                prompt_tokens=room.prompt_tokens,
                sequences=room.sequences,
            )

    def _fail_refused(self, refused: list[tuple[Sequence, Refusal]]) -> None:
        for sequence, refusal in refused:
            self._refusals.note(refusal)
            self._metrics.on_given_up("error")
            if (listener := self._forget(sequence)) is not None:
                listener.fail(Refused(refusal.message))

    def _expire(self, sequence: Sequence) -> None:
        """Its time was up before it ran again."""
        self._scheduler.finish(sequence)
        self._finish(sequence, FinishReason.LENGTH, time.monotonic(), sequence.delivered)
        self._pump_soon()

    def _on_first_token(self, sequence: Sequence, listener: Listener, now: float) -> None:
        sequence.first_token_at = now
        self._metrics.on_first_token(now - sequence.arrival)
        if (scores := self._prompts.pop(sequence)) is not None:
            listener.prompt(scores.logprobs, scores.tops or (), scores.ranks)

    def _forget(self, sequence: Sequence) -> Listener | None:
        """Nothing is kept for a sequence that has ended. Its listener, which is to hear of it."""
        self._prompts.pop(sequence)
        self._deadlines.forget(sequence)
        if sequence.grammar and sequence.request.grammar is not None:
            self._grammars.drop(sequence.request.grammar)
            sequence.grammar = 0
        listener, sequence.listener = sequence.listener, None
        return listener

    def _finish(self, sequence: Sequence, reason: FinishReason, now: float, generated: int) -> None:
        if (listener := self._forget(sequence)) is None:
            return
        # One whose time was up in the queue has been at neither.
        admitted = now if sequence.admitted_at is None else sequence.admitted_at
        first_token = now if sequence.first_token_at is None else sequence.first_token_at
        self._metrics.on_finish(generated, now - admitted)
        self._metrics.on_end(reason.value, first_token - admitted, now - first_token, generated)
        listener.finish(
            Finish(
                reason=reason,
                generated_tokens=generated,
                cached_tokens=sequence.cached_tokens,
                queue_seconds=admitted - sequence.arrival,
                first_token_seconds=first_token - sequence.arrival,
                total_seconds=now - sequence.arrival,
            )
        )

    # -- failure -------------------------------------------------------------------------------

    def _look(self, late: float) -> None:
        """Look for a step that is overdue: a hung rank never reports anything.

        Beats count, and one that is late counts once: while this loop stood still, a result may
        have waited for it, and is read before the next beat.
        """
        self._metrics.on_lag(late)
        if self._failure is not None or not self._under_way:
            return
        assert self._watch is not None
        self._silence += self._watch.period
        if self._silence > self._stall_seconds:
            overdue = f"no result of step {self._under_way[0].step} for {self._silence:.0f} s"
            if self._silence > self._step_timeout:
                self.on_overdue()
                self._on_failure(ShardFailure("; ".join(filter(None, (overdue, self._trouble)))))
            elif not self._stall:
                self._on_stall(overdue)
                self.on_overdue()

    def _on_stall(self, reason: str) -> None:
        """A step is late, or has come after all (empty)."""
        self._stall = reason
        self._tell(reason, "ready again: the step has ended")

    def _on_trouble(self, reason: str) -> None:
        """A shard does not answer, or all do again (empty)."""
        self._trouble = reason
        self._tell(reason, "ready again: all shards answer")

    def _tell(self, reason: str, again: str) -> None:
        if reason:
            log("WARNING", f"not ready: {reason}")
        elif not self.trouble:
            log("INFO", again)
        self.on_trouble(self.trouble)

    def give_up(self, reason: str) -> None:
        """Fail all requests, and those that are still to come."""
        if self._failure is None:
            self._failure = GenerationFailed(reason)
            self._end_all(self._failure)
            self._quiet.set()  # nothing is left that a drain could wait for

    def _on_failure(self, failure: ShardFailure) -> None:
        if self._failure is not None:
            return
        self._metrics.on_step_failure()
        self.give_up(str(failure))
        if not self.failed.done():
            self.failed.set_exception(failure)

    def _end_all(self, error: EngineError) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        for sequence in self._scheduler.end_all():
            self._metrics.on_given_up("error")
            if (listener := self._forget(sequence)) is not None:
                listener.fail(error)
