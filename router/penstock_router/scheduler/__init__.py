"""The scheduler: a pure state machine over sequences, slots and KV blocks.

No I/O, no clock, no asyncio. The engine drives it: `submit`, `cancel`, `plan`, `commit`.
"""

from penstock_router.scheduler.config import SchedulerConfig
from penstock_router.scheduler.flight import Outcome
from penstock_router.scheduler.plan import StepPlan
from penstock_router.scheduler.scheduler import Scheduler
from penstock_router.scheduler.sequence import RunningSequence, Sequence

__all__ = ["Outcome", "RunningSequence", "Scheduler", "SchedulerConfig", "Sequence", "StepPlan"]
