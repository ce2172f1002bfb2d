"""What the metrics are told of sequences and steps."""

from __future__ import annotations

import time

from penstock_proto.shard_pb2 import StepResult
from penstock_router.metrics import Metrics
from penstock_router.request import Finish, FinishReason
from penstock_router.scheduler import Scheduler, Sequence, StepPlan


class EngineStats:
    """Turns what happens in one engine into figures."""

    def __init__(self, scheduler: Scheduler, metrics: Metrics) -> None:
        self._scheduler = scheduler
        self._metrics = metrics
        self._preemptions = 0  # of the scheduler's, those that are counted

    def submitted(self, sequence: Sequence) -> None:
        """A request was queued."""
        request = sequence.request
        self._metrics.grammars.on_forced(len(sequence.opening))
        self._metrics.on_submit(len(request.prompt), request.max_new_tokens)

    def planned(self, plan: StepPlan, began: float) -> None:
        """A step is planned, which was begun at that time."""
        if plan.admit:
            self._metrics.on_join(time.monotonic() - began)
        for running in plan.admit:
            sequence = running.sequence
            if sequence.admitted_at == began:
                wait = began - sequence.arrival
                self._metrics.on_admit(wait, sequence.cached_tokens, len(sequence.request.prompt))

    def load(self) -> None:
        """How much waits and runs now, and what holds the blocks."""
        scheduler, metrics = self._scheduler, self._metrics
        blocks = scheduler.blocks
        if scheduler.preemptions > self._preemptions:
            metrics.on_preemption(scheduler.preemptions - self._preemptions)
            self._preemptions = scheduler.preemptions
        metrics.on_queue(scheduler.waiting)
        metrics.on_running(scheduler.running, scheduler.running_tokens)
        metrics.on_blocks(blocks.used, blocks.cache.evictable, blocks.total)

    def stepped(self, plan: StepPlan, result: StepResult, seconds: float) -> None:
        """A step of a plan has run."""
        decoded = len(plan.decode)
        self._metrics.grammars.on_step(result)
        self._metrics.grammars.on_forced(plan.run_tokens - len(plan.runs))
        self._metrics.on_step(plan.chunked, plan.rows - decoded, decoded, seconds)

    def finished(
        self, sequence: Sequence, reason: FinishReason, now: float, generated: int
    ) -> Finish:
        """A sequence ended as its request asked, with so many tokens; its end with all figures."""
        # One whose time was up in the queue has been at neither.
        admitted = now if sequence.admitted_at is None else sequence.admitted_at
        first_token = now if sequence.first_token_at is None else sequence.first_token_at
        self._metrics.on_finish(generated, now - admitted)
        self._metrics.on_end(reason.value, first_token - admitted, now - first_token, generated)
        return Finish(
            reason=reason,
            generated_tokens=generated,
            cached_tokens=sequence.cached_tokens,
            queue_seconds=admitted - sequence.arrival,
            first_token_seconds=first_token - sequence.arrival,
            total_seconds=now - sequence.arrival,
        )
