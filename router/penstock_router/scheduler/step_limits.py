"""What a step may be made of: less for a while, once the shards ran out of memory in one."""

from __future__ import annotations

from penstock_router.scheduler.plan import StepPlan

LEAST_PROMPT_TOKENS = 64  # a step; with fewer prompts would take for ever
# What took the memory may go away, and one client's odd request must not slow all others for good;
# a batch that fails every ten thousand steps is what it costs where it does not.
STEPS_UNTIL_WHOLE = 10_000


class StepLimits:
    """Sizes within those that the shards were warmed up for."""

    def __init__(self, prompt_tokens: int, sequences: int) -> None:
        """prompt_tokens: a step; sequences: at once."""
        self._whole = prompt_tokens, sequences
        self.prompt_tokens, self.sequences = self._whole
        self._steps_left = 0

    def shrink(self, plan: StepPlan) -> bool:
        """Make steps half as large as one that did not fit: in prompt tokens, or where it had next
        to none, in sequences. False: they are no larger than that already."""
        before = self.prompt_tokens, self.sequences
        tokens, sequences = plan.prefill_tokens + plan.run_tokens, len(plan.decode) + plan.chunked
        if tokens > LEAST_PROMPT_TOKENS:
            self.prompt_tokens = min(self.prompt_tokens, max(tokens // 2, LEAST_PROMPT_TOKENS))
        else:
            self.sequences = min(self.sequences, max(sequences // 2, 1))
        self._steps_left = STEPS_UNTIL_WHOLE
        return (self.prompt_tokens, self.sequences) != before

    def pass_steps(self, steps: int) -> None:
        """So many more are planned."""
        if self._steps_left:
            self._steps_left = max(0, self._steps_left - steps)
            if not self._steps_left:
                self.prompt_tokens, self.sequences = self._whole
