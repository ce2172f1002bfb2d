"""Runs steps: turns a command into rows, the rows into tokens, and keeps every tensor of it.

A decode step reads static tensors only: the rows' slots stand in a fixed buffer, tokens, positions
and block tables are gathered from the slots on the device, and the sampled token goes back to its
slot. So an unchanged batch needs nothing from the host, tokens feed the next step without passing
through it, and the step can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penstock_kernels.ops import (
    Activation,
    Device,
    GraphDevice,
    Sampler,
)
from penstock_proto import shard_pb2
from penstock_shard import log
from penstock_shard.device import upload
from penstock_shard.grammars.templates import Templates
from penstock_shard.memory.copies import conflict_free_batches
from penstock_shard.memory.out_of_memory import give_back, is_out_of_memory
from penstock_shard.model.model import Model
from penstock_shard.ranks.agreement import NoMemory, check_room
from penstock_shard.ranks.mapped_outputs import mapped_outputs
from penstock_shard.ranks.parallel import Group
from penstock_shard.sampling.plan import Sampled, SamplingPlan
from penstock_shard.sampling.sample_graphs import SampleGraphs
from penstock_shard.steps.admissions import objection
from penstock_shard.steps.eager import EagerInputs, EagerRows
from penstock_shard.steps.graphs import (
    Capturer,
    DecodeGraphs,
    GraphKind,
    GraphSizes,
    SlotTensors,
    StepOutputs,
)
from penstock_shard.steps.limits import ShardLimits
from penstock_shard.steps.mixed_graphs import MixedGraphs
from penstock_shard.steps.prompt_scores import PromptScorer
from penstock_shard.steps.results import PendingResult, StepTimer, refusal
from penstock_shard.steps.rows import Chunks, Indices
from penstock_shard.steps.sharing import SharingTensors
from penstock_shard.steps.slots import HostSlots
from penstock_shard.steps.token_choice import TokenChoice

_NONE = np.empty(0, np.int64)
NO_CHUNKS = Chunks(_NONE, _NONE, _NONE, np.empty(0, np.bool_))


@dataclass(frozen=True, slots=True)
class StepGraphs:
    """What was captured; steps of both kinds leave their outcome in the same place."""

    decode: DecodeGraphs
    mixed: MixedGraphs
    draws: SampleGraphs | None  # where tokens are chosen
    outputs: StepOutputs
    sharing: SharingTensors

    @property
    def kinds(self) -> tuple[GraphKind, ...]:
        """In the order in which they are captured: they share memory, and the first takes most."""
        return (self.mixed, self.decode, *([] if self.draws is None else [self.draws]))

    def load(self, book: HostSlots) -> None:
        """Other slots decode."""
        if self.decode.fits(len(book.decode)):
            self.decode.load(book.decode)
        self.sharing.load(book.group_rows, book.group_blocks, book.limits.block_size)


class Runner:
    """One rank's executor of step commands. Not thread-safe: one thread calls it."""

    def __init__(
        self,
        model: Model,
        group: Group,
        limits: ShardLimits,
        cache: Tensor,
        ops: Device,
        sampler: Sampler,
        templates: Templates,
    ) -> None:
        self.model, self.group, self.limits, self.cache = model, group, limits, cache
        self.ops, self.sampler, self.device = ops, sampler, cache.device
        self.book = HostSlots(limits)
        device = self.device
        self.slots = SlotTensors.empty(limits.max_slots, limits.table_width, device)
        self._choice = TokenChoice(self.book, group, device, sampler, templates)
        self.sampling = self._choice.state  # rank 0's
        self._scorer = PromptScorer(
            model, group, self.book, limits, self.sampling, sampler.rows_alone, device
        )
        self._eager = EagerRows(ops, self.slots, self.book)
        self._graphs: StepGraphs | None = None
        self.row_bytes = 0  # that a step which is no graph takes for each of its rows

    @torch.inference_mode()
    def capture_graphs(
        self,
        sizes: GraphSizes,
        capture: Capturer,
        expect: Callable[[int], None] | None = None,
    ) -> None:
        """From here on steps are replays of CUDA graphs, where one is large enough. expect: told
        before how many graphs there will be."""
        graphs = self.graphs_of(sizes)
        if expect is not None:
            expect(sum(kind.count for kind in graphs.kinds))
        for kind in graphs.kinds:
            kind.capture(capture)
        self._graphs = graphs

    @torch.inference_mode()
    def graphs_of(self, sizes: GraphSizes) -> StepGraphs:
        """Graphs that are still to be captured, and the tensors that they read and write. A
        collective."""
        ops = cast(GraphDevice, self.ops)  # that of the CPU is never captured
        limits, dtype = self.limits, self.model.dtype
        outputs = mapped_outputs(self.model.head, limits.max_slots, dtype) or StepOutputs.empty(
            limits.max_slots,
            limits.vocab_size,
            samples=self.sampling is not None,
            everywhere=self.group.world_size == 1,
            dtype=dtype,
            device=self.device,
        )
        sharing = SharingTensors(limits.max_slots, ops.tile_rows, self.device)
        parts = (self.model, ops, self.slots, self.cache, outputs, sharing)
        prompts = min(limits.max_prefill_tokens, sizes.prompt_tokens)
        mixed = MixedGraphs(*parts, prompts, limits.max_chunks)
        decode = DecodeGraphs(*parts, sizes.decode)
        draws = None
        if self.sampling is not None:
            draws = SampleGraphs(self.sampling, self.sampler, outputs.logits)
        return StepGraphs(decode, mixed, draws, outputs, sharing)

    @torch.inference_mode()
    def execute(self, command: shard_pb2.StepCommand) -> Iterator[PendingResult]:
        """Apply a command and run its steps. Raises BadCommand before any tensor was touched by
        the part that is wrong; after an error the runner's state is undefined."""
        self.book.begin(command)
        self._release_and_copy(command)
        refused = self._admit_all(command)
        if command.forget_grammar:
            self._choice.forget(command.forget_grammar)
        self._grant(command)
        if command.append:
            self._choice.append(self.book.append(command.append))
        chunks, rows = self.book.run(command)
        if command.decode_changed:
            self._eager.decode(self.book.decode)
            self._decode_changed()
        elif command.admit:  # a released slot may have come back with other sampling
            self._choice.decode_changed()
        # The book is ahead of the steps: lengths before the first of them.
        lengths = self.book.computed[self.book.decode] - command.repeat
        for repeat in range(command.repeat):
            pending = self._attempt(command.step + repeat, lengths + repeat, chunks)
            if pending is None:  # nothing of its slots is computed, in later steps neither
                refused, rows, chunks = refused + self._give_up(chunks), rows.without(), NO_CHUNKS
                lengths = lengths[:0]
                pending = PendingResult(command.step + repeat, StepTimer(self.device))
            if self.sampling is not None:
                pending.rows, pending.refused = rows, refused
            refused = []
            yield pending

    def _attempt(self, step: int, lengths: Indices, chunks: Chunks) -> PendingResult | None:
        """Run a step. None: it did not fit in memory, on one rank or on all.

        Of several ranks the others wait in a collective once the step has begun: there it is an
        error then.
        """
        try:
            return self._step(step, lengths, chunks)
        except (RuntimeError, MemoryError) as error:
            known = self.group.world_size == 1 or isinstance(error, NoMemory)
            if not known or not is_out_of_memory(error):
                raise
            log.warning(f"step {step} does not fit in memory: {error}")
        return None

    def _check_room(self, chunks: Chunks) -> None:
        """Raises NoMemory on every rank where one has too little for a step with prompts that is no
        graph, before any of them begins it. Steps that only decode are small, and not held up by a
        question to all ranks."""
        if self.group.world_size > 1 and len(chunks.slots):
            rows = len(self.book.decode) + int(chunks.lengths.sum())
            size = max(rows * self.row_bytes, self._scorer.bytes_of(chunks))
            check_room(self.group, self.device, size)

    def _give_up(self, chunks: Chunks) -> list[shard_pb2.Refusal]:
        """The slots of the step are refused: how far each came is not known."""
        give_back(self.device)
        slots = self.book.give_up(chunks)
        self._decode_changed()
        return [refusal(slot, shard_pb2.Refusal.OUT_OF_MEMORY) for slot in slots.tolist()]

    def _decode_changed(self) -> None:
        """Tell what stands for the decoding slots that they are others."""
        self._choice.decode_changed()
        if self._graphs is not None:
            self._graphs.load(self.book)

    def _release_and_copy(self, command: shard_pb2.StepCommand) -> None:
        if command.release:
            self.book.release(np.array(command.release, np.int64))
        self.copy_blocks(self.book.copy(command.copy_from, command.copy_to))

    def _admit_all(self, command: shard_pb2.StepCommand) -> list[shard_pb2.Refusal]:
        """Returns the admissions that are refused."""
        refused = []
        admitted = []
        for admission in command.admit:
            if (reason := objection(admission, self.limits)) is None:
                admitted.append(admission)
            else:
                self.book.refuse(admission)
                kind = shard_pb2.Refusal.BAD_ADMISSION
                refused.append(shard_pb2.Refusal(slot=admission.slot, kind=kind, message=reason))
        if admitted:
            self._admit(admitted)
        return refused

    def _admit(self, admissions: list[shard_pb2.Admission]) -> None:
        width, block_size = self.limits.table_width, self.limits.block_size
        tables = np.zeros((len(admissions), width), np.int32)
        fresh: list[NDArray[np.int32]] = []
        for table, admission in zip(tables, admissions, strict=True):
            tokens, blocks = self.book.admit(admission)
            table[: len(blocks)] = blocks
            fresh.append(blocks[-(-admission.cached // block_size) :])  # that no copy has filled
            self._choice.admit(admission, tokens)
        slots = np.array([admission.slot for admission in admissions], np.int64)
        self.slots.block_table.index_copy_(
            0, upload(slots, self.device), upload(tables, self.device)
        )
        self._choice.load(slots)
        self.ops.clear_blocks(self.cache, np.concatenate(fresh))

    @torch.inference_mode()
    def copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        """Copy blocks, from and to, one after the other."""
        for part in conflict_free_batches(copies):
            source, target = upload(np.array(part, np.int64).T.copy(), self.device)
            self.ops.copy_blocks(self.cache, source, target)

    @torch.inference_mode()
    def step_costs(self) -> dict[int, float]:
        """Seconds of steps with prompts by their rows, where they are graphs. A collective."""
        return {} if self._graphs is None else self._graphs.mixed.costs()

    def _grant(self, command: shard_pb2.StepCommand) -> None:
        if not command.grant_slot and not command.grant_block:
            return
        slots = np.array(command.grant_slot, np.int64)
        blocks = np.array(command.grant_block, np.int64)
        granted = np.stack(self.book.grant(slots, blocks))
        packed = upload(granted, self.device)
        self.slots.block_table.index_put_((packed[0], packed[1]), packed[2].to(torch.int32))
        self.ops.clear_blocks(self.cache, granted[2])

    def _step(self, step: int, lengths: Indices, chunks: Chunks) -> PendingResult:
        timer = StepTimer(self.device)
        if not len(lengths) and not len(chunks.slots):
            timer.stop()
            return PendingResult(step, timer)
        if (replayed := self._replay(chunks)) is not None:
            return self._replayed(step, timer, chunks, replayed)
        self._check_room(chunks)
        inputs, plan = self._eager.inputs(lengths, chunks), self._choice.plan(chunks)
        hidden = self.model.forward(inputs.step, inputs.token, inputs.position, self.cache)
        sampled = self._sample(hidden, inputs, plan, chunks)
        self._eager.advance(inputs, chunks)
        prompt = self._scorer.parts(hidden, inputs.step, inputs.decode_rows, chunks)
        result = self._choice.pending(step, timer, sampled, plan)
        result.prompt = prompt
        timer.stop()
        return result

    def _replay(self, chunks: Chunks) -> Tensor | None:
        """Replay the step's graph, if there is one. Returns the slots of the outputs' rows."""
        graphs, rows = self._graphs, len(self.book.decode)
        if graphs is None:
            return None
        if not len(chunks.slots):
            if not graphs.decode.fits(rows):
                return None
            graphs.decode.replay(rows)
            return graphs.decode.slot[:rows]
        if self.book.scored(chunks)[1].any():
            return None  # they need the hidden states of more rows
        step = graphs.mixed.step(self.book.decode, chunks, self.book.chunks_tokens(chunks))
        if not graphs.mixed.fits(step):
            return None
        graphs.mixed.replay(step)
        return graphs.mixed.sampled_slots(step, rows + int(chunks.complete.sum()))

    def _replayed(
        self, step: int, timer: StepTimer, chunks: Chunks, slots: Tensor
    ) -> PendingResult:
        """The outcome of a graph. What is not greedy is drawn by another, or sampled after it."""
        assert self._graphs is not None
        outputs, plan, rows = self._graphs.outputs, self._choice.plan(chunks), len(slots)
        sampled, token = None, outputs.token[:rows]
        is_greedy = self._choice.is_greedy(chunks)
        if plan is not None:
            sampled = Sampled(token)
            if not is_greedy:
                sampled = self._choice.chosen(outputs.logits[:rows], plan, self._graphs.draws)
                token = sampled.token
        if rows and not (is_greedy and outputs.everywhere):
            token = self.group.broadcast(token)
            self.slots.last_token.index_copy_(0, slots, token)
        result = self._choice.pending(step, timer, sampled, plan)
        timer.stop()
        return result

    def _sample(
        self, hidden: Activation, inputs: EagerInputs, plan: SamplingPlan | None, chunks: Chunks
    ) -> Sampled | None:
        """Rank 0 chooses, all ranks store the token where the next step reads it."""
        if not inputs.decode_rows and not chunks.complete.any():
            return None
        rows = inputs.sampled_rows
        logits = self.model.head(hidden if rows is None else hidden.select(rows), inputs.step)
        slots = inputs.slot if rows is None else inputs.slot.index_select(0, rows)
        sampled = None
        if plan is not None and logits is not None:
            sampled = self._choice.chosen(logits, plan)
            token = self.group.broadcast(sampled.token)
        else:
            token = self.group.broadcast(torch.empty_like(slots))
        self.slots.last_token.index_copy_(0, slots, token)
        return sampled
