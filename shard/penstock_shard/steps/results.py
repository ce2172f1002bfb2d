"""The outcome of a step on its way from the device to the wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penstock_proto import shard_pb2
from penstock_shard.device import download
from penstock_shard.grammars.matching import Turn
from penstock_shard.sampling.plan import Sampled
from penstock_shard.steps.rows import Indices, ResultRows
from penstock_shard.steps.scores import Given, Scores, columns

REASONS: Mapping[int, str] = {
    shard_pb2.Refusal.OUT_OF_MEMORY: "the step that computed the request did not fit in memory",
    shard_pb2.Refusal.NOT_A_NUMBER: "the model's logits are not finite numbers (NaN or infinity)",
    shard_pb2.Refusal.BAD_ADMISSION: "what the request forbids, with its grammar, leaves no token "
    "here, or the model's logits are not finite numbers (NaN or infinity)",
}


class StepTimer:
    """Time between its creation and `stop`, as the device sees it."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._start = self._end = time.perf_counter_ns()
        if self._cuda:
            event: Callable[..., Any] = torch.cuda.Event
            self._events = [event(enable_timing=True) for _ in range(2)]
            self._events[0].record()

    def stop(self) -> None:
        """Everything launched since then is part of the step."""
        self._end = time.perf_counter_ns()
        if self._cuda:
            self._events[1].record()

    def wait(self) -> int:
        """Wait until the step is done on the device. Returns nanoseconds."""
        if not self._cuda:
            return self._end - self._start
        self._events[1].synchronize()
        return int(self._events[0].elapsed_time(self._events[1]) * 1e6)


@dataclass(frozen=True, slots=True)
class PromptPart:
    """Log-probabilities of the prompt tokens that a chunk predicted."""

    slot: int
    start: int
    scores: Scores | None  # on the host; None: there was no memory for them
    columns: list[int]  # of the others in their places, which it wants


@dataclass(slots=True)
class PendingResult:
    """A step that was launched, copies to the host included; `build` waits for them."""

    step: int
    timer: StepTimer
    sampled: Sampled | None = None  # on the host; None where no row was computed
    top_n: Indices | None = None  # of each computed row
    given: Given | None = None  # of the computed rows
    prompt: list[PromptPart] = field(default_factory=list)
    rows: ResultRows | None = None  # None on ranks that do not sample
    refused: list[shard_pb2.Refusal] = field(default_factory=list)  # of the command's admissions
    turn: Turn | None = None  # of the grammars, where any row has one
    ruled: frozenset[int] = frozenset()  # slots with rules about tokens

    def build(self) -> shard_pb2.StepResult:
        """Wait for the device and fill the message."""
        result = shard_pb2.StepResult(step=self.step, device_ns=self.timer.wait())
        if self.rows is None:
            return result
        result.refused.extend(self.refused)
        if self.turn is not None:
            _add_turn(result, self.turn, self.rows.places)
        self._add_tokens(result, self.rows)
        if self.sampled is not None and self.sampled.scores is not None:
            self._add_scores(result, self.rows, self.sampled.scores)
        for part in self.prompt:
            scores = part.scores
            if scores is None:
                result.refused.append(refusal(part.slot, shard_pb2.Refusal.OUT_OF_MEMORY))
                continue
            added = result.prompt.add(
                slot=part.slot,
                start=part.start,
                logprob=scores.logprob.tolist(),
                rank=scores.rank.tolist(),
            )
            if scores.top_token is not None and scores.top_logprob is not None:
                added.top_token = _bytes(scores.top_token[:, part.columns], "<i4")
                added.top_logprob = _bytes(scores.top_logprob[:, part.columns], "<f4")
            if scores.logprob.isnan().any():
                result.refused.append(refusal(part.slot, shard_pb2.Refusal.NOT_A_NUMBER))
        return result

    def _add_tokens(self, result: shard_pb2.StepResult, rows: ResultRows) -> None:
        computed, kind = np.empty(0, np.int64), shard_pb2.Refusal.NOT_A_NUMBER
        if self.sampled is not None:
            computed = self.sampled.token.numpy()
            if self.sampled.lost:
                kind = shard_pb2.Refusal.OUT_OF_MEMORY
        token = rows.spread(computed)
        without = np.flatnonzero(token < 0)
        if len(without):  # NO_TOKEN
            token = np.maximum(token, 0)
            for slot in rows.slots[without].tolist():
                # a client can ask for that, and it says nothing of the model
                ruled = kind == shard_pb2.Refusal.NOT_A_NUMBER and slot in self.ruled
                reason = shard_pb2.Refusal.BAD_ADMISSION if ruled else kind
                result.refused.append(refusal(slot, reason))
        result.token.extend(token.tolist())

    def _add_scores(self, result: shard_pb2.StepResult, rows: ResultRows, scores: Scores) -> None:
        result.logprob.extend(rows.spread(scores.logprob.numpy()).tolist())
        result.rank.extend(rows.spread(scores.rank.numpy()).tolist())
        if scores.top_token is None or scores.top_logprob is None:
            return
        top_n = self.top_n
        assert top_n is not None
        width, given_width, given = scores.top_token.shape[1], 0, np.zeros_like(top_n)
        if self.given is not None:
            given_width, given = self.given.width, self.given.counts
        place = rows.places
        for row in (top_n + given).nonzero()[0].tolist():
            own = columns(int(top_n[row]), int(given[row]), width, given_width)
            result.top.add(
                row=int(place[row]),
                token=scores.top_token[row, own].tolist(),
                logprob=scores.top_logprob[row, own].tolist(),
            )


def _add_turn(result: shard_pb2.StepResult, turn: Turn, places: Indices) -> None:
    """What grammars say of the tokens; waits until they have. places: of the computed rows.

    Raises RuntimeError where they cannot.
    """
    turn.wait()
    result.refused.extend(turn.refused)
    for row, tokens in turn.forced:
        result.forced.add(row=int(places[row]), token=tokens)
    result.mask_ns, result.mask_wait_ns = int(turn.seconds * 1e9), int(turn.waited * 1e9)


def _bytes(values: Tensor, kind: str) -> bytes:
    """As a message carries them: a list of a quarter of a million takes both sides 100 ms."""
    return values.numpy().astype(kind).tobytes()


def refusal(slot: int, kind: shard_pb2.Refusal.Kind) -> shard_pb2.Refusal:
    """Of a sequence that goes no further, for one of the reasons below."""
    return shard_pb2.Refusal(slot=slot, kind=kind, message=REASONS[kind])


def to_host(sampled: Sampled) -> Sampled:
    """Launch the copies of a step's tokens."""
    scores = sampled.scores
    on_host = None if scores is None else scores.on_host()
    return Sampled(download(sampled.token), on_host, sampled.lost)
