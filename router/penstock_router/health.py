"""Whether the shards live, answer and get on.

A rank that hangs never reports anything, so this looks for a step that is overdue: late after a
part of the time after which it is given up.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock_router.logs import log
from penstock_router.pulse import Pulse
from penstock_router.request import GenerationFailed
from penstock_router.shard_client import ShardFailure

LOOK_SECONDS = 0.5
LOOKS = 8  # at least, in the time that a step may take
LATE_SHARE = 0.25  # of the time after which a step is given up: from then on it is late


class Health:
    """Of the shards of one engine; `trouble` says what is wrong with them."""

    def __init__(self, step_timeout: float, give_up: Callable[[ShardFailure], None]) -> None:
        """give_up: is called with a step that takes more than `step_timeout` seconds."""
        self.step_timeout = step_timeout
        self.failure: GenerationFailed | None = None  # once there is one, for good
        self.on_trouble: Callable[[str], None] = lambda reason: None
        self.on_overdue: Callable[[], None] = lambda: None  # when a step is late, and when too late
        self._give_up = give_up
        self._late_seconds = step_timeout * LATE_SHARE
        self._silence = 0.0  # seconds in which a result of a step under way was listened for
        self._late_step = ""
        self._silent_shard = ""
        self._pulse: Pulse | None = None

    def start(self, awaited: Callable[[], int | None], on_lag: Callable[[float], None]) -> None:
        """Begin to look. awaited: the step under way; on_lag: hears how late each look is."""
        period = min(LOOK_SECONDS, self.step_timeout / LOOKS)

        def look(late: float) -> None:
            on_lag(late)
            if self.failure is None and (step := awaited()) is not None:
                self._look(step, period)

        self._pulse = Pulse(period, look)

    @property
    def trouble(self) -> str:
        """Why nothing would be generated now; empty while the shards live, answer and get on."""
        return str(self.failure) if self.failure else self._silent_shard or self._late_step

    def check(self) -> None:
        """Raises GenerationFailed when the shards are gone."""
        if self.failure is not None:
            raise self.failure

    def progress(self) -> None:
        """A step begins while none was under way, or a result is in."""
        self._silence = 0.0
        if self._late_step:
            self._note_late_step("")

    def note_silent_shard(self, reason: str) -> None:
        """A shard does not answer, or all do again (empty)."""
        self._silent_shard = reason
        self._tell(reason, "ready again: all shards answer")

    def _look(self, step: int, seconds: float) -> None:
        """Looks count, and one that is late counts once: while the event loop stood still, a result
        may have waited for it, and is read before the next look."""
        self._silence += seconds
        if self._silence <= self._late_seconds:
            return
        overdue = f"no result of step {step} for {self._silence:.0f} s"
        if self._silence > self.step_timeout:
            self.on_overdue()
            why = (f"{overdue} (--step-timeout)", self._silent_shard)
            self._give_up(ShardFailure("; ".join(filter(None, why))))
        elif not self._late_step:
            self._note_late_step(overdue)
            self.on_overdue()

    def _note_late_step(self, reason: str) -> None:
        """A step is late, or has come after all (empty)."""
        self._late_step = reason
        self._tell(reason, "ready again: the step has ended")

    def _tell(self, reason: str, again: str) -> None:
        if reason:
            log("WARNING", f"not ready: {reason}")
        elif not self.trouble:
            log("INFO", again)
        self.on_trouble(self.trouble)
