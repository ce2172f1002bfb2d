"""A server without a model: the real scheduler, and a clock that is moved on by what steps cost."""

from __future__ import annotations

import random
from array import array
from collections import deque
from dataclasses import dataclass

from benchmarks.autoscaling.costs import StepCosts
from benchmarks.autoscaling.trace import Arrival

from penstock_router.request import GenerationRequest
from penstock_router.scheduler import Scheduler, SchedulerConfig, StepPlan

BLOCK = 64
WINDOW = 120.0  # seconds that the queue's measure looks back, as the chart's rule does


@dataclass(frozen=True, slots=True)
class Size:
    """Of one server."""

    kv_tokens: int = 400_000  # an H100 beside 8B in bfloat16
    batch: int = 256
    prefill: int = 4096  # prompt tokens a step
    longest: int = 16_384  # tokens of a sequence


@dataclass(slots=True)
class Served:
    """A request and when things happened to it; seconds."""

    arrival: Arrival
    admitted: float | None = None
    first_token: float | None = None
    ended: float | None = None


class Replica:
    """One server. `advance` runs its next command."""

    def __init__(self, number: int, ready_at: float, costs: StepCosts, size: Size) -> None:
        self.number = number
        self.ready_at = ready_at
        self.leaving = False  # takes no new requests
        self.busy_until = ready_at
        self.busy = False
        self.busy_seconds = 0.0
        self.cached = self.prompted = 0  # tokens
        self._costs = costs
        self._size = size
        self._under_way: StepPlan | None = None
        self._seconds = 0.0  # of a step of it
        self._live: dict[int, Served] = {}
        self._waits: deque[tuple[float, float]] = deque()  # (admitted, seconds in the queue)
        self.scheduler = Scheduler(
            SchedulerConfig(
                num_blocks=size.kv_tokens // BLOCK + 1,
                block_size=BLOCK,
                max_batch_size=size.batch,
                max_batch_prefill_tokens=size.prefill,
                max_waiting_tokens=20,
                waiting_served_ratio=0.3,
                shared_reads=None,
                grant_seconds=0.05,  # fewer commands to simulate; arrivals wait so much longer
            )
        )

    @property
    def load(self) -> int:
        """Requests that it has."""
        return len(self._live)

    @property
    def kv_use(self) -> float:
        """Share of the KV blocks that live sequences hold."""
        blocks = self.scheduler.blocks
        return blocks.used / blocks.total

    @property
    def batch_use(self) -> float:
        """Share of the batch's seats that are taken."""
        return self.scheduler.running / self._size.batch

    def waits(self, now: float) -> list[float]:
        """Seconds in the queue, of those that were admitted lately."""
        while self._waits and self._waits[0][0] < now - WINDOW:
            self._waits.popleft()
        return [wait for _, wait in self._waits]

    def submit(self, served: Served, now: float) -> None:
        """Queue a request."""
        arrival, longest = served.arrival, self._size.longest
        prompt = _tokens(arrival, longest)
        room = max(1, min(arrival.output, longest - len(prompt)))
        sequence = self.scheduler.submit(GenerationRequest(prompt, room), now)
        self._live[sequence.id] = served

    def begin(self, now: float) -> bool:
        """Plan the next command, if there is something to do; it runs until `busy_until`."""
        plan = self.scheduler.plan(now)
        if plan is None:
            return False
        for seat in plan.admit:
            served = self._live[seat.sequence.id]
            if served.admitted is None:
                served.admitted = now
                self._waits.append((now, now - seat.sequence.arrival))
                self.cached += seat.sequence.cached_tokens
                self.prompted += len(seat.sequence.request.prompt)
        rows = len(plan.decode)
        kv_tokens = sum(seat.planned for seat in plan.decode)
        self._seconds = self._costs.seconds(rows, kv_tokens, plan.prefill_tokens)
        self._under_way = plan
        self.busy = True
        self.busy_until = now + self._seconds * plan.repeat
        self.busy_seconds += self._seconds * plan.repeat
        return True

    def end(self, now: float) -> list[Served]:
        """The command is over; those that ended with it."""
        plan = self._under_way
        assert plan is not None
        self.busy, self._under_way = False, None
        ended = []
        sampling = sum(1 for seat, _ in plan.chunks if not seat.prefilling)
        for offset in range(plan.repeat):
            tokens = [0] * (len(plan.decode) + sampling)
            for outcome in self.scheduler.commit(plan.step + offset, tokens, self._seconds):
                served = self._live.get(outcome.sequence.id)
                if served is None:
                    continue
                if served.first_token is None:
                    served.first_token = now
                if outcome.finish is not None:
                    served.ended = now
                    ended.append(served)
                    del self._live[outcome.sequence.id]
        return ended


def _tokens(arrival: Arrival, longest: int) -> array[int]:
    """Ids of a prompt: the group's, and behind them others that nobody else has."""
    length = min(arrival.prompt, longest - 1)
    shared = min(arrival.shared, length)
    group = random.Random(arrival.group)
    prefix = array("I", (group.randrange(1 << 17) for _ in range(shared)))
    own = random.Random(arrival.time)
    return prefix + array("I", (own.randrange(1 << 17) for _ in range(length - shared)))
