"""What Kubernetes' HorizontalPodAutoscaler decides, and what KEDA has it decide.

The arithmetic is that of the documentation (autoscaling/v2): wanted = ceil(replicas x measure /
target) for each measure, within a tolerance none; the most of them counts; the last minutes' most
holds it up; policies bound how fast it changes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TOLERANCE = 0.1
SYNC_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The chart's values."""

    mode: str = "hpa"  # hpa, keda, or none
    least: int = 1
    most: int = 8
    queue_seconds: float = 2.0
    kv_use: float = 0.8
    batch_use: float = 0.5
    stabilization: float = 600.0  # seconds
    down_period: float = 120.0  # in which one pod is taken away: the chart's grace period

    @property
    def targets(self) -> dict[str, float]:
        """By the name of the measure."""
        return {
            "queue_seconds": self.queue_seconds,
            "kv_use": self.kv_use,
            "batch_use": self.batch_use,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas there are to be, and the measure that asks for most of them."""

    replicas: int
    by: str


# By name: that of each pod that is ready, None where there is none. KEDA's queries have one value.
Measures = Mapping[str, Sequence[float | None]]


class Autoscaler:
    """Asked every SYNC_SECONDS."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._wanted: deque[tuple[float, int]] = deque()
        self._downs: deque[float] = deque()  # when a pod was taken away
        self._ups: deque[tuple[float, int]] = deque()  # (when, how many replicas there were)

    def decide(self, now: float, current: int, unready: int, measures: Measures) -> Decision:
        """How many there are to be.

        current: pods there are, `unready` of them not ready yet.
        """
        policy = self.policy
        if policy.mode == "none":
            return Decision(current, "")
        wishes = {
            name: self._of(current, unready, measures[name], target)
            for name, target in policy.targets.items()
        }
        by = max(wishes, key=wishes.__getitem__)
        wanted = min(max(wishes[by], policy.least), policy.most)
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - policy.stabilization:
            self._wanted.popleft()
        if wanted > current:
            return Decision(self._up(now, current, wanted), by)
        held = max(count for _, count in self._wanted)
        return Decision(self._down(now, current, min(held, current)), by)

    def _of(self, current: int, unready: int, values: Sequence[float | None], target: float) -> int:
        """By one measure. Of pods that are not ready nothing is known: they count as idle where
        more would be wanted, and as at the target where fewer would."""
        known = [value for value in values if value is not None]
        if not known:
            return current
        if self.policy.mode == "keda":  # one value for all: the query's own mean
            ratio = sum(known) / len(known) / target
            within = abs(ratio - 1) <= TOLERANCE
            return current if within else math.ceil((current - unready) * ratio)
        ratio = sum(known) / len(known) / target
        missing = current - len(known)
        if missing and abs(ratio - 1) > TOLERANCE:
            filled = 0.0 if ratio > 1 else target
            again = (sum(known) + missing * filled) / current / target
            if (again > 1) != (ratio > 1):
                return current
            ratio = again
        return current if abs(ratio - 1) <= TOLERANCE else math.ceil(current * ratio)

    def _up(self, now: float, current: int, wanted: int) -> int:
        """Kubernetes' own policy: four pods, or as many again, in 15 s."""
        while self._ups and self._ups[0][0] <= now - SYNC_SECONDS:
            self._ups.popleft()
        base = self._ups[0][1] if self._ups else current
        self._ups.append((now, current))
        return min(wanted, max(2 * base, base + 4))

    def _down(self, now: float, current: int, wanted: int) -> int:
        if wanted >= current:
            return wanted
        while self._downs and self._downs[0] <= now - self.policy.down_period:
            self._downs.popleft()
        if self._downs:
            return current
        self._downs.append(now)
        return current - 1
