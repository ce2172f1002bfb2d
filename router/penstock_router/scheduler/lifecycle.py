"""How sequences come, wait, lose what they hold, and end."""

from __future__ import annotations

import re

from penstock_router.scheduler.block_manager import BlockManager
from penstock_router.scheduler.config import SchedulerConfig
from penstock_router.scheduler.decode_batch import DecodeBatch
from penstock_router.scheduler.queue import Queue
from penstock_router.scheduler.running_batch import RunningBatch
from penstock_router.scheduler.sequence import RunningSequence, Sequence, State


class Lifecycle:
    """Owns the queue, the batch and the blocks, and takes sequences out of them.

    How they get in is the matter of `AdmissionPolicy`.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.blocks = BlockManager(config.num_blocks, config.block_size, config.prefix_cache)
        self.queue = Queue()
        self.batch = RunningBatch(config.max_batch_size)
        self.decode = DecodeBatch(config, self.batch)
        self.sequences: dict[int, Sequence] = {}  # every one that has not ended
        self.preemptions = 0

    def add(self, sequence: Sequence) -> None:
        """A sequence is new."""
        self.sequences[sequence.id] = sequence
        self._wait(sequence)

    def named(self, name: str | None) -> list[Sequence]:
        """Those that have that name, or the name of one of a batch of it (`name_0`); all for
        None."""
        if name is None:
            return list(self.sequences.values())
        own = re.compile(re.escape(name) + r"(_\d+)*")
        return [s for s in self.sequences.values() if own.fullmatch(s.request.name)]

    def make_room(self, running: RunningSequence) -> bool:
        """Preempt until a block is available; False if `running` itself had to go."""
        while not self.blocks.available:
            victim = max(
                (s for s in self.batch if s.decoding or s.prefilling),
                key=lambda s: (s.sequence.order, s.sequence.id),
            )
            self._preempt(victim)
            if victim is running:
                return False
        return True

    def settle(self, sequence: Sequence) -> None:
        """A result for a sequence is in: one that was preempted waits again after its last."""
        if sequence.state is State.SETTLING and not sequence.in_flight:
            self._wait(sequence)

    def end(self, sequence: Sequence) -> None:
        """End a sequence, wherever it is."""
        if sequence.state is State.WAITING:
            self.queue.leave(sequence)
        if running := self.batch.of(sequence.id):
            self._take_out(running)
        sequence.state = State.ENDED
        del self.sequences[sequence.id]
        self.queue.sweep()

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, blocks and counts add up."""
        batch = list(self.batch)
        self.blocks.check_integrity(batch)
        self.batch.check_integrity()
        states = [sequence.state for sequence in self.sequences.values()]
        waiting = [s for s in self.sequences.values() if s.state is State.WAITING]
        self.queue.check_integrity(waiting)
        assert states.count(State.RUNNING) == len(batch)
        assert State.ENDED not in states
        for running in batch:
            capacity = len(running.blocks) * self.blocks.block_size
            assert running.cached <= running.computed <= running.planned <= capacity
            assert not running.private & set(running.node.path_blocks())

    def _wait(self, sequence: Sequence) -> None:
        self.queue.push(sequence, self.blocks.to_compute(sequence))

    def _preempt(self, running: RunningSequence) -> None:
        """Take back slot and blocks; the sequence resumes from what the cache still holds of it."""
        self.preemptions += 1
        self._take_out(running)
        running.sequence.state = State.SETTLING
        self.settle(running.sequence)

    def _take_out(self, running: RunningSequence) -> None:
        self.batch.remove(running)
        self.blocks.release(running)
        self.decode.stale = True
