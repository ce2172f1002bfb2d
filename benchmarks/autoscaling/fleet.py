"""Replays arrivals against simulated servers behind a balancer, under an autoscaler."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.autoscaling.autoscaler import SYNC_SECONDS, Autoscaler, Policy
from benchmarks.autoscaling.costs import StepCosts
from benchmarks.autoscaling.replica import Replica, Served, Size
from benchmarks.autoscaling.trace import Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is simulated beside the arrivals."""

    policy: Policy
    first: int = 1  # replicas at the start, ready
    start_seconds: float = 90.0  # from a wish to a server that is ready
    affinity: str = "prefix"  # or none: the least loaded
    load_factor: float = 1.25  # the chart's balancer.loadFactor
    size: Size = Size()


@dataclass(frozen=True, slots=True)
class Look:
    """The fleet at a moment."""

    time: float
    replicas: int
    ready: int
    queue_seconds: float
    kv_use: float
    batch_use: float
    waiting: int


@dataclass(frozen=True, slots=True)
class Change:
    """What the autoscaler did. by: the measure that asked for most, its mean, and its target."""

    time: float
    before: int
    after: int
    by: str
    value: float
    target: float


@dataclass
class Outcome:
    """What happened."""

    served: list[Served] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    replica_seconds: float = 0.0
    busy_seconds: float = 0.0
    cached: int = 0
    prompted: int = 0
    seconds: float = 0.0


class Fleet:
    """See the module."""

    def __init__(self, setting: Setting, costs: StepCosts) -> None:
        self._setting = setting
        self._costs = costs
        self._autoscaler = Autoscaler(setting.policy)
        self._numbers = itertools.count()
        self._replicas = [self._new(0.0) for _ in range(setting.first)]
        self._events: list[tuple[float, int, str, object]] = []
        self._order = itertools.count()
        self._outcome = Outcome()
        self._pending: list[Served] = []  # that no server is there for

    def run(self, arrivals: Sequence[Arrival]) -> Outcome:
        """Until all are served."""
        for arrival in arrivals:
            self._at(arrival.time, "arrival", arrival)
        self._at(0.0, "look", None)
        left, last = len(arrivals), 0.0
        while left:
            now, _, what, who = heapq.heappop(self._events)
            self._outcome.replica_seconds += (now - last) * len(self._replicas)
            last = now
            if what == "arrival":
                assert isinstance(who, Arrival)
                served = Served(who)
                self._outcome.served.append(served)
                self._place(served, now)
            elif what == "ready":
                pending, self._pending = self._pending, []
                for served in pending:
                    self._place(served, now)
            elif what == "end":
                assert isinstance(who, Replica)
                left -= len(who.end(now))
                self._go_on(who, now)
            else:
                self._look(now)
        for replica in self._replicas:
            self._count(replica)
        self._outcome.seconds = last
        return self._outcome

    def _new(self, ready_at: float) -> Replica:
        return Replica(next(self._numbers), ready_at, self._costs, self._setting.size)

    def _at(self, time: float, what: str, who: object) -> None:
        heapq.heappush(self._events, (time, next(self._order), what, who))

    def _place(self, served: Served, now: float) -> None:
        ready = [r for r in self._replicas if r.ready_at <= now and not r.leaving]
        if not ready:
            self._pending.append(served)
            return
        replica = self._choice(served.arrival, ready)
        replica.submit(served, now)
        if not replica.busy:
            self._go_on(replica, now)

    def _choice(self, arrival: Arrival, ready: list[Replica]) -> Replica:
        """By the prefix, unless that one has much more than the mean; then the next by the hash."""
        if self._setting.affinity == "none":
            return min(ready, key=lambda r: (r.load, r.number))
        bound = self._setting.load_factor * (sum(r.load for r in ready) + 1) / len(ready)
        order = sorted(ready, key=lambda r: random.Random(f"{arrival.group}:{r.number}").random())
        return next((r for r in order if r.load + 1 <= bound), order[0])

    def _go_on(self, replica: Replica, now: float) -> None:
        if replica.begin(now):
            self._at(replica.busy_until, "end", replica)
        elif replica.leaving and not replica.load:
            self._count(replica)
            self._replicas.remove(replica)

    def _count(self, replica: Replica) -> None:
        self._outcome.busy_seconds += replica.busy_seconds
        self._outcome.cached += replica.cached
        self._outcome.prompted += replica.prompted

    def _look(self, now: float) -> None:
        staying = [r for r in self._replicas if not r.leaving]
        ready = [r for r in staying if r.ready_at <= now]
        queues: list[float | None] = [quantile(r.waits(now)) for r in ready]
        if self._setting.policy.mode == "keda":  # its query asks for that of all together
            queues = [quantile([wait for r in ready for wait in r.waits(now)])]
        measures: dict[str, list[float | None]] = {
            "queue_seconds": queues,
            "kv_use": [r.kv_use for r in ready],
            "batch_use": [r.batch_use for r in ready],
        }
        means = {name: mean(values) for name, values in measures.items()}
        current = len(staying)
        decision = self._autoscaler.decide(now, current, current - len(ready), measures)
        wanted = decision.replicas
        if wanted != current:
            by, targets = decision.by, self._setting.policy.targets
            change = Change(now, current, wanted, by, means[by], targets[by])
            self._outcome.changes.append(change)
        waiting = sum(r.scheduler.waiting for r in ready) + len(self._pending)
        uses = means["queue_seconds"], means["kv_use"], means["batch_use"]
        self._outcome.looks.append(Look(now, len(self._replicas), len(ready), *uses, waiting))
        for _ in range(wanted - current):
            replica = self._new(now + self._setting.start_seconds)
            self._replicas.append(replica)
            self._at(replica.ready_at, "ready", None)
        # Kubernetes takes those first that are not ready, then the youngest.
        for replica in sorted(staying, key=lambda r: -r.ready_at)[: max(current - wanted, 0)]:
            replica.leaving = True
            if not replica.busy:
                self._go_on(replica, now)
        self._at(now + SYNC_SECONDS, "look", None)


def quantile(waits: Sequence[float]) -> float:
    """The 90th percentile; 0 of nothing, as the chart's rule and its query say."""
    return sorted(waits)[int(0.9 * (len(waits) - 1))] if waits else 0.0


def mean(values: Sequence[float | None]) -> float:
    """Of those that there are; 0 of nothing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
