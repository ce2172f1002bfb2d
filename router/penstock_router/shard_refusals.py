"""What the shards refuse: sequences that they cannot compute, and steps that do not fit."""

from __future__ import annotations

from penstock_proto.shard_pb2 import Refusal, StepResult
from penstock_router.instruments import RefusalKind
from penstock_router.logs import RareLog, log
from penstock_router.metrics import Metrics
from penstock_router.scheduler import Scheduler, Sequence, StepPlan

KINDS: dict[int, RefusalKind] = {
    Refusal.BAD_ADMISSION: "bad_admission",
    Refusal.NOT_A_NUMBER: "not_a_number",
    Refusal.GRAMMAR_FAILED: "grammar_failed",
    Refusal.OUT_OF_MEMORY: "out_of_memory",
}


class Refusals:
    """Those of one engine: what they end, and what the log and the metrics are told of them."""

    def __init__(self, scheduler: Scheduler, metrics: Metrics) -> None:
        self._scheduler = scheduler
        self._metrics = metrics
        self._log = RareLog("penstock_router")  # a line a kind: one client may cause thousands

    def take(self, result: StepResult) -> list[tuple[Sequence, str]]:
        """End the sequences that a result refuses: these, and why. Raises ValueError as
        `Scheduler.refuse` does."""
        ended = []
        for refusal in result.refused:
            broken = refusal.kind == Refusal.NOT_A_NUMBER
            sequence = self._scheduler.refuse(result.step, refusal.slot, broken)
            if sequence is not None:
                ended.append((sequence, refusal.message))
                self.note(refusal)
        return ended

    def learn(self, plan: StepPlan, result: StepResult) -> None:
        """Make what is planned from here on smaller than a step that did not fit in memory."""
        limits = self._scheduler.step_limits
        if any(one.kind == Refusal.OUT_OF_MEMORY for one in result.refused) and limits.shrink(plan):
            log(
                "WARNING",
                "a step did not fit in memory: from here on steps are smaller",
                prompt_tokens=limits.prompt_tokens,
                sequences=limits.sequences,
            )

    def note(self, refusal: Refusal) -> None:
        """A sequence was refused."""
        kind = KINDS[refusal.kind]
        self._metrics.on_refusal(kind)
        self._log("WARNING", f"refused by the shards: {kind}", reason=refusal.message)
