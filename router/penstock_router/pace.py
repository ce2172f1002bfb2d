"""How long the next command may wait while a long step runs.

A command that is sent waits on the device, and what arrives after it waits for it too. Behind a
step with many prompt tokens (20 to 90 ms, 8B on an H100) nothing is lost when the next command is
made later, and it takes in what has arrived until then.
"""

from __future__ import annotations

from penstock_router.scheduler import StepPlan

# So long before its expected end a step has its successor waiting; shorter ones always have. It
# takes 2 to 3 ms to plan and launch it. The rest is for a router that has a burst of arrivals to
# take in first (by a model of a router half as fast as ours 4 to 8 ms cost 64 streams of short
# answers 0.7 to 0.9 %, 10 nothing), and the quarter of a longer step for a wrong expectation.
LEAD_SECONDS = 0.010
LEAD_SHARE = 0.25
RECOVERY = 0.125  # of the way up to a step that took longer; down at once


class Pace:
    """Learns from the steps that ran how long one of so many rows takes at least."""

    def __init__(self) -> None:
        self._shortest: dict[tuple[bool, int], float] = {}  # seconds

    def learn(self, plan: StepPlan, seconds: float) -> None:
        """A step of `plan` took so long on the device."""
        kind = _kind(plan)
        known = self._shortest.get(kind, seconds)
        self._shortest[kind] = min(seconds, known + RECOVERY * (seconds - known))

    def slack(self, plan: StepPlan) -> float:
        """Seconds from the beginning of a step of `plan` in which the next command is not needed.

        0 where no step of its kind has run yet.
        """
        expected = self._shortest.get(_kind(plan), 0.0)
        return max(0.0, expected - max(LEAD_SECONDS, LEAD_SHARE * expected))


def _kind(plan: StepPlan) -> tuple[bool, int]:
    """Steps of about one length: with prompts or without, rows within a quarter of a power of 2."""
    rows = plan.rows
    shift = max(0, rows.bit_length() - 3)
    return bool(plan.chunked), rows >> shift << shift
