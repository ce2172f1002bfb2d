"""Slots: the seats of running sequences, as the host knows them.

Everything the host needs in order to launch a step (lengths, ends of prompts, block counts) follows
from the commands, so these mirrors never wait for the device. Commands are checked against them
before anything reaches a tensor: an index out of range on a GPU would poison all later requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_proto import shard_pb2

Indices = NDArray[np.int64]


class BadCommand(ValueError):
    """The router sent a command that contradicts what it sent before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes fixed at warmup."""

    max_prefill_tokens: int
    max_slots: int
    max_sequence_length: int
    max_top_n: int
    vocab_size: int
    block_size: int
    num_blocks: int

    @property
    def table_width(self) -> int:
        """Blocks of the longest sequence."""
        return -(-self.max_sequence_length // self.block_size)


@dataclass(frozen=True, slots=True)
class Chunks:
    """The prefill rows of a step, in the command's order."""

    slots: Indices
    starts: Indices  # tokens computed before
    lengths: Indices
    complete: NDArray[np.bool_]  # chunk reaches the end of the slot's tokens, so it samples


class SlotBook:
    """Host mirrors of all slots, moved by commands alone."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        slots = limits.max_slots
        self.active = np.zeros(slots, np.bool_)
        self.known = np.zeros(slots, np.int64)  # tokens given at admission
        self.computed = np.zeros(slots, np.int64)  # tokens whose KV stands in the cache
        self.blocks = np.zeros(slots, np.int64)  # length of the block table
        self.prompt_logprobs = np.zeros(slots, np.bool_)
        self.prompt_top_n = np.zeros(slots, np.int64)
        self.tokens: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * slots
        self.decode: Indices = np.empty(0, np.int64)
        self.group_rows: Indices = np.empty(0, np.int64)  # of `decode`, from its start on
        self.group_blocks: Indices = np.empty(0, np.int64)  # that each group shares
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

    def admit(self, admission: shard_pb2.Admission) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Fill a slot. Returns its tokens and its first blocks."""
        limits, slot = self.limits, admission.slot
        tokens = np.frombuffer(admission.tokens, np.int32)
        blocks = np.frombuffer(admission.blocks, np.int32)
        if slot >= limits.max_slots:
            raise BadCommand(f"admit.slot must be below {limits.max_slots}, not {slot}")
        if self.active[slot]:
            raise BadCommand(f"admit.slot {slot} is taken")
        if not 1 <= len(tokens) <= limits.max_sequence_length:
            raise BadCommand(
                f"admit.tokens of slot {slot} must number 1 to {limits.max_sequence_length}, "
                f"not {len(tokens)}"
            )
        _check_range("admit.tokens", tokens, 0, limits.vocab_size)
        _check_range("admit.blocks", blocks, 1, limits.num_blocks)
        if len(blocks) > limits.table_width:
            raise BadCommand(
                f"admit.blocks of slot {slot} must number at most {limits.table_width}, "
                f"not {len(blocks)}"
            )
        if admission.generated >= len(tokens):
            raise BadCommand(f"admit.generated {admission.generated} leaves slot {slot} no prompt")
        if admission.cached >= len(tokens) or admission.cached > len(blocks) * limits.block_size:
            raise BadCommand(
                f"admit.cached {admission.cached} of slot {slot} must be below its {len(tokens)} "
                f"tokens and stand in its {len(blocks)} blocks"
            )
        if bool(admission.begun) != bool(admission.cached % limits.block_size):
            raise BadCommand(
                f"admit.begun {admission.begun} of slot {slot} with {admission.cached} cached "
                f"tokens in blocks of {limits.block_size}"
            )
        if admission.begun >= limits.num_blocks:
            raise BadCommand(
                f"admit.begun must be in [0, {limits.num_blocks}), not {admission.begun}"
            )
        if admission.prompt_logprobs and admission.cached:
            raise BadCommand(f"admit.prompt_logprobs of slot {slot} excludes cached tokens")
        if admission.prompt_top_n > limits.max_top_n:
            raise BadCommand(
                f"admit.prompt_top_n of slot {slot} must be at most {limits.max_top_n}, "
                f"not {admission.prompt_top_n}"
            )
        self.active[slot] = True
        self.known[slot] = len(tokens)
        self.computed[slot] = admission.cached
        self.blocks[slot] = len(blocks)
        self._tables[slot, : len(blocks)] = blocks
        self.prompt_logprobs[slot] = admission.prompt_logprobs
        self.prompt_top_n[slot] = admission.prompt_top_n
        self.tokens[slot] = tokens
        return tokens, blocks

    def grant(self, slots: Indices, blocks: Indices) -> Indices:
        """Append blocks[i] to the table of slots[i]. Returns the column that each one takes."""
        if len(slots) != len(blocks):
            raise BadCommand(f"{len(slots)} grant_slot for {len(blocks)} grant_block")
        self._check_active(slots, "grant_slot")
        _check_range("grant_block", blocks, 1, self.limits.num_blocks)
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
        return column

    def run(self, command: shard_pb2.StepCommand) -> Chunks:
        """Check the rows of the command's steps and count their tokens as computed."""
        if command.decode_changed:
            decode = np.array(command.decode, np.int64)
            self._check_active(decode, "decode")
            _check_unique("decode", decode)
            self.decode = decode
            self._set_groups(command)
        chunks = self._chunks(command)
        decode = self.decode
        if len(decode):
            if not (self.active[decode] & (self.computed[decode] >= self.known[decode])).all():
                raise BadCommand("decode lists a slot that is free or whose prompt is not computed")
            self._check_room(decode, self.computed[decode] + command.repeat)
            self.computed[decode] += command.repeat
        self.computed[chunks.slots] += chunks.lengths
        return chunks

    def _set_groups(self, command: shard_pb2.StepCommand) -> None:
        """Check that the slots of each group really share its blocks."""
        rows = np.array(command.group_rows, np.int64)
        blocks = np.array(command.group_blocks, np.int64)
        if len(rows) != len(blocks) or rows.sum() > len(self.decode):
            raise BadCommand(
                f"group_rows {rows.tolist()} for group_blocks {blocks.tolist()} and "
                f"{len(self.decode)} decoding slots"
            )
        _check_range("group_rows", rows, 1, self.limits.max_slots + 1)
        _check_range("group_blocks", blocks, 1, self.limits.table_width + 1)
        first = 0
        for count, shared in zip(rows.tolist(), blocks.tolist(), strict=True):
            members = self.decode[first : first + count]
            tables = self._tables[members, :shared]
            if (tables != tables[0]).any() or (
                self.computed[members] < shared * self.limits.block_size
            ).any():
                raise BadCommand(f"slots {members.tolist()} do not share {shared} computed blocks")
            first += count
        self.group_rows, self.group_blocks = rows, blocks

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
        self._check_room(slots, starts + lengths)
        return Chunks(slots, starts, lengths, lengths == left)

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
