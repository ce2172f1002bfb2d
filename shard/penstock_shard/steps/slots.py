"""The slots of running sequences, as the host knows them.

Everything the host needs in order to launch a step (lengths, ends of prompts, block counts) follows
from the commands, so these mirrors never wait for the device. Commands are checked against them
before anything reaches a tensor: an index out of range on a GPU would poison all later requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock_proto import shard_pb2
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.rows import Chunks, Indices, ResultRows


class BadCommand(ValueError):
    """The router sent a command that contradicts what it sent before, or itself."""


class HostSlots:
    """Host mirrors of all slots, moved by commands alone.

    A slot whose admission was refused is taken, and listed, until the router releases it. Nothing
    of it is computed and nothing of its blocks is looked at.
    """

    def __init__(self, limits: ShardLimits) -> None:
        self.limits = limits
        slots = limits.max_slots
        self.active = np.zeros(slots, np.bool_)
        self.known = np.zeros(slots, np.int64)  # tokens given at admission, or appended
        self.offset = np.zeros(slots, np.int64)  # place of the first of `tokens`
        self.computed = np.zeros(slots, np.int64)  # tokens whose KV stands in the cache
        self.blocks = np.zeros(slots, np.int64)  # length of the block table
        self.prompt_logprobs = np.zeros(slots, np.bool_)
        self.prompt_start = np.zeros(slots, np.int64)  # the first place that predicts for them
        self.prompt_top_n = np.zeros(slots, np.int64)
        self.tokens: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * slots
        self.refused: set[int] = set()  # of the active ones
        self.listed: Indices = np.empty(0, np.int64)  # slots that decode, as the router lists them
        self.decode: Indices = np.empty(0, np.int64)  # those of them that are computed
        self.group_rows: Indices = np.empty(0, np.int64)  # of `decode`, from its start on
        self.group_blocks: Indices = np.empty(0, np.int64)  # that each group shares
        self._copied: set[int] = set()  # blocks that the command's copies fill
        self._tables = np.zeros((slots, limits.table_width), np.int32)
        self.next_step = 1

    def begin(self, command: shard_pb2.StepCommand) -> None:
        """Check the number of the step and how often it repeats."""
        if command.step != self.next_step:
            raise BadCommand(f"step must be {self.next_step}, not {command.step}")
        if command.repeat < 1:
            raise BadCommand(f"repeat must be at least 1, not {command.repeat}")
        if command.repeat > 1 and command.chunk_slot:
            raise BadCommand(f"repeat must be 1 in a step with chunks, not {command.repeat}")
        self.next_step += command.repeat

    def release(self, slots: Indices) -> None:
        """Give slots up."""
        self._check_active(slots, "release")
        self.active[slots] = False
        self.refused.difference_update(slots.tolist())

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> list[tuple[int, int]]:
        """The command's copies of blocks, from and to."""
        self._copied = set(targets)
        if len(sources) != len(targets):
            raise BadCommand(f"{len(sources)} copy_from for {len(targets)} copy_to")
        if not sources:
            return []
        for name, blocks in (("copy_from", sources), ("copy_to", targets)):
            _check_range(name, np.array(blocks, np.int64), 1, self.limits.num_blocks)
        return list(zip(sources, targets, strict=True))

    def refuse(self, admission: shard_pb2.Admission) -> None:
        """Fill a slot with a sequence of which nothing is computed."""
        self._take(admission)
        self.prompt_logprobs[admission.slot] = False
        self.refused.add(admission.slot)

    def give_up(self, chunks: Chunks) -> Indices:
        """Compute nothing more of the slots of the step that `run` has checked. Returns them."""
        slots = np.concatenate((self.decode, chunks.slots))
        self.refused.update(slots.tolist())
        self.decode = self.group_rows = self.group_blocks = np.empty(0, np.int64)
        return slots

    def _take(self, admission: shard_pb2.Admission) -> None:
        """What the router counts from, whether the sequence is computed or not."""
        slot = admission.slot
        if slot >= self.limits.max_slots:
            raise BadCommand(f"admit.slot must be below {self.limits.max_slots}, not {slot}")
        if self.active[slot]:
            raise BadCommand(f"admit.slot {slot} is taken")
        self.active[slot] = True
        self.known[slot] = (len(admission.request.prompt) + len(admission.generated)) // 4
        self.offset[slot] = 0
        self.computed[slot] = admission.cached

    def admit(self, admission: shard_pb2.Admission) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Fill a slot with a sequence that `admissions` has no objection to. Returns its tokens and
        its first blocks."""
        self._take(admission)
        slot, request = admission.slot, admission.request
        tokens = np.frombuffer(request.prompt + admission.generated, np.int32)
        blocks = np.frombuffer(admission.blocks, np.int32)
        self._check_admission(admission, tokens, blocks)
        self.blocks[slot] = len(blocks)
        self._tables[slot, : len(blocks)] = blocks
        self.prompt_logprobs[slot] = request.prompt_logprobs
        self.prompt_start[slot] = request.prompt_logprobs_start
        self.prompt_top_n[slot] = request.prompt_top_n
        self.tokens[slot] = tokens
        return tokens, blocks

    def _check_admission(
        self, admission: shard_pb2.Admission, tokens: NDArray[np.int32], blocks: NDArray[np.int32]
    ) -> None:
        """Blocks that exist, and hold what is said to be cached."""
        limits, slot, request = self.limits, admission.slot, admission.request
        _check_range("admit.blocks", blocks, 1, limits.num_blocks)
        if len(blocks) > limits.table_width:
            raise BadCommand(
                f"admit.blocks of slot {slot} must number at most {limits.table_width}, "
                f"not {len(blocks)}"
            )
        if not request.prompt:
            raise BadCommand(f"admit.request of slot {slot} has no prompt")
        if admission.cached >= len(tokens) or admission.cached > len(blocks) * limits.block_size:
            raise BadCommand(
                f"admit.cached {admission.cached} of slot {slot} must be below its {len(tokens)} "
                f"tokens and stand in its {len(blocks)} blocks"
            )
        full, partial = divmod(admission.cached, limits.block_size)
        if partial and blocks[full] not in self._copied:
            raise BadCommand(
                f"no copy to block {blocks[full]} of slot {slot}, which has {partial} cached tokens"
            )
        start = request.prompt_logprobs_start
        if request.prompt_logprobs and admission.cached > start:
            raise BadCommand(
                f"admit.cached {admission.cached} of slot {slot} must be at most its "
                f"prompt_logprobs_start, {start}"
            )

    def grant(self, slots: Indices, blocks: Indices) -> tuple[Indices, Indices, Indices]:
        """Append blocks[i] to the table of slots[i]. Returns slots, the column in its table that
        each block takes, and blocks, without those of refused slots."""
        if len(slots) != len(blocks):
            raise BadCommand(f"{len(slots)} grant_slot for {len(blocks)} grant_block")
        self._check_active(slots, "grant_slot")
        _check_range("grant_block", blocks, 1, self.limits.num_blocks)
        if self.refused:
            kept = self._kept(slots)
            slots, blocks = slots[kept], blocks[kept]
        # The k-th block of a slot in this command goes k columns further.
        order = np.argsort(slots, kind="stable")
        ordered = slots[order]
        column = np.empty_like(slots)
        column[order] = np.arange(len(slots)) - np.searchsorted(ordered, ordered)
        column += self.blocks[slots]
        if (column >= self.limits.table_width).any():
            slot = slots[column >= self.limits.table_width][0]
            raise BadCommand(f"slot {slot} has more than {self.limits.table_width} blocks")
        np.add.at(self.blocks, slots, 1)
        self._tables[slots, column] = blocks
        return slots, column, blocks

    def append(self, appended: Sequence[shard_pb2.Append]) -> list[tuple[int, Indices]]:
        """Give slots that decoded more tokens to compute. Returns slots and tokens, without those
        of refused slots."""
        slots = np.array([one.slot for one in appended], np.int64)
        self._check_active(slots, "append")
        _check_unique("append", slots)
        found = []
        for one in appended:
            slot, tokens = one.slot, np.frombuffer(one.tokens, np.int32)
            if len(tokens) < 2 or self.computed[slot] < self.known[slot]:
                raise BadCommand(
                    f"append of {len(tokens)} tokens to slot {slot}, which has computed "
                    f"{self.computed[slot]} of {self.known[slot]}"
                )
            _check_range("append.tokens", tokens, 0, self.limits.vocab_size)
            self.offset[slot] = self.computed[slot]
            self.known[slot] = self.computed[slot] + len(tokens)
            self.tokens[slot] = tokens
            self.prompt_logprobs[slot] = False  # the prompt's are known
            if slot not in self.refused:
                found.append((slot, tokens.astype(np.int64)))
        return found

    def chunk_tokens(self, slot: int, start: int, count: int) -> NDArray[np.int32]:
        """Tokens of a slot from a place on."""
        start -= int(self.offset[slot])
        return self.tokens[slot][start : start + count]

    def chunks_tokens(self, chunks: Chunks) -> list[NDArray[np.int32]]:
        """The tokens that each chunk computes."""
        spans = zip(chunks.slots, chunks.starts, chunks.lengths, strict=True)
        return [self.chunk_tokens(*span) for span in spans]

    def run(self, command: shard_pb2.StepCommand) -> tuple[Chunks, ResultRows]:
        """Check the rows of the command's steps and count their tokens as computed. Returns the
        chunks to compute in the first step, and the rows of the results."""
        if command.decode_changed:
            listed = np.array(command.decode, np.int64)
            self._check_active(listed, "decode")
            _check_unique("decode", listed)
            self.listed = listed
            self.decode = listed[self._kept(listed)] if self.refused else listed
            self._set_groups(command)
        chunks = self._chunks(command)
        listed = self.listed
        if len(listed):
            if not (self.active[listed] & (self.computed[listed] >= self.known[listed])).all():
                raise BadCommand("decode lists a slot that is free or whose prompt is not computed")
            self._check_room(self.decode, self.computed[self.decode] + command.repeat)
            self.computed[listed] += command.repeat
        self.computed[chunks.slots] += chunks.lengths
        slots = listed
        if chunks.complete.any():
            slots = np.concatenate((listed, chunks.slots[chunks.complete]))
        if not self.refused:
            return chunks, ResultRows(slots, None)
        return chunks.where(self._kept(chunks.slots)), ResultRows(slots, self._kept(slots))

    def _kept(self, slots: Indices) -> NDArray[np.bool_]:
        """Which of some slots are computed: those that were not refused."""
        return np.isin(slots, list(self.refused), invert=True)

    def _set_groups(self, command: shard_pb2.StepCommand) -> None:
        """Check that the slots of each group really share its blocks. Refused ones leave it."""
        rows = np.array(command.group_rows, np.int64)
        blocks = np.array(command.group_blocks, np.int64)
        if len(rows) != len(blocks) or rows.sum() > len(self.listed):
            raise BadCommand(
                f"group_rows {rows.tolist()} for group_blocks {blocks.tolist()} and "
                f"{len(self.listed)} decoding slots"
            )
        _check_range("group_rows", rows, 1, self.limits.max_slots + 1)
        _check_range("group_blocks", blocks, 1, self.limits.table_width + 1)
        first, left = 0, []
        for count, shared in zip(rows.tolist(), blocks.tolist(), strict=True):
            members = self.listed[first : first + count]
            members = members[self._kept(members)]
            left.append(len(members))
            first += count
            if not len(members):
                continue
            tables = self._tables[members, :shared]
            if (tables != tables[0]).any() or (
                self.computed[members] < shared * self.limits.block_size
            ).any():
                raise BadCommand(f"slots {members.tolist()} do not share {shared} computed blocks")
        rows = np.array(left, np.int64)
        self.group_rows, self.group_blocks = rows[rows > 0], blocks[rows > 0]

    def _chunks(self, command: shard_pb2.StepCommand) -> Chunks:
        slots = np.array(command.chunk_slot, np.int64)
        lengths = np.array(command.chunk_length, np.int64)
        if len(slots) != len(lengths):
            raise BadCommand(f"{len(slots)} chunk_slot for {len(lengths)} chunk_length")
        if not len(slots):
            return Chunks(slots, slots, lengths, np.empty(0, np.bool_))
        self._check_active(slots, "chunk_slot")
        _check_unique("chunk_slot", slots)
        if lengths.min() < 1 or lengths.sum() > self.limits.max_prefill_tokens:
            raise BadCommand(
                f"chunk_length must be at least 1 each and {self.limits.max_prefill_tokens} in "
                f"all, not {lengths.tolist()}"
            )
        starts = self.computed[slots]
        left = self.known[slots] - starts
        if (lengths > left).any():
            raise BadCommand(f"chunk_length {lengths.tolist()} exceeds {left.tolist()} tokens left")
        kept = self._kept(slots)
        self._check_room(slots[kept], (starts + lengths)[kept])
        return Chunks(slots, starts, lengths, lengths == left)

    def scored(self, chunks: Chunks) -> tuple[Indices, Indices]:
        """Of each chunk, the first place that predicts a prompt token whose log-probability is
        wanted, and how many places do."""
        slots = chunks.slots
        ends = chunks.starts + chunks.lengths - chunks.complete
        starts = np.maximum(chunks.starts, self.prompt_start[slots])
        return starts, np.where(self.prompt_logprobs[slots], (ends - starts).clip(0), 0)

    def _check_active(self, slots: Indices, name: str) -> None:
        _check_range(name, slots, 0, self.limits.max_slots)
        if not self.active[slots].all():
            raise BadCommand(f"{name} names the free slot {slots[~self.active[slots]][0]}")

    def _check_room(self, slots: Indices, ends: Indices) -> None:
        room = np.minimum(
            self.blocks[slots] * self.limits.block_size,
            self.limits.table_width * self.limits.block_size,
        )
        if (ends > room).any():
            worst = int(np.argmax(ends - room))
            raise BadCommand(
                f"slot {slots[worst]} has blocks for {room[worst]} tokens and needs {ends[worst]}"
            )


def _check_range(name: str, values: NDArray[np.integer], low: int, high: int) -> None:
    if len(values) and (values.min() < low or values.max() >= high):
        bad = values[(values < low) | (values >= high)][0]
        raise BadCommand(f"{name} must be in [{low}, {high}), not {bad}")


def _check_unique(name: str, slots: Indices) -> None:
    if len(np.unique(slots)) != len(slots):
        raise BadCommand(f"{name} names a slot twice")
