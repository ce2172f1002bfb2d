"""Which sequences decode in the next step, in which order."""

from __future__ import annotations

from penstock_router.scheduler.config import SchedulerConfig
from penstock_router.scheduler.running_batch import RunningBatch
from penstock_router.scheduler.sequence import RunningSequence
from penstock_router.scheduler.sharing import group_by_prefix


class DecodeBatch:
    """The rows of a decode step, the same from step to step until it is `stale`.

    Whoever lets a sequence join or leave says so; the rows are put together anew with the next
    plan, and the shards are told of them only then.
    """

    def __init__(self, config: SchedulerConfig, batch: RunningBatch) -> None:
        self.rows: list[RunningSequence] = []  # of the last plan
        self.groups: list[tuple[int, int]] = []  # of them that share blocks: see `sharing`
        self.stale = False
        self._batch = batch
        self._block_size = config.block_size
        self._shared_reads = config.shared_reads

    def members(self) -> list[RunningSequence]:
        """Those that decode next; `rows` while nobody joined or left."""
        if not self.stale:
            return self.rows
        return [running for running in self._batch if running.decoding]

    def refresh(self) -> None:
        """Put the rows together anew where they are stale; they stay so until a plan has them."""
        if self.stale:
            self.rows, self.groups = self.members(), []
            if self._shared_reads is not None:
                self.rows, self.groups = group_by_prefix(
                    self.rows, self._block_size, self._shared_reads
                )
