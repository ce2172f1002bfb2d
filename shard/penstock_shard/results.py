"""The outcome of a step on its way from the device to the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from penstock_proto import shard_pb2
from penstock_shard.device import download
from penstock_shard.sampling import Sampled
from penstock_shard.scores import Scores
from penstock_shard.slots import Indices


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
    scores: Scores  # on the host


@dataclass(slots=True)
class PendingResult:
    """A step that was launched, copies to the host included; `build` waits for them."""

    step: int
    timer: StepTimer
    sampled: Sampled | None  # on the host; None on ranks that do not sample
    top_n: Indices | None  # of each row
    prompt: list[PromptPart] = field(default_factory=list)

    def build(self) -> shard_pb2.StepResult:
        """Wait for the device and fill the message."""
        result = shard_pb2.StepResult(step=self.step, device_ns=self.timer.wait())
        if self.sampled is not None and self.top_n is not None:
            result.token.extend(self.sampled.token.tolist())
            if self.sampled.logprob is not None:
                result.logprob.extend(self.sampled.logprob.tolist())
            self._add_top(result, self.sampled, self.top_n)
        for part in self.prompt:
            scores = part.scores
            added = result.prompt.add(
                slot=part.slot, start=part.start, logprob=scores.logprob.tolist()
            )
            if scores.top_token is not None and scores.top_logprob is not None:
                added.top_token.extend(scores.top_token.flatten().tolist())
                added.top_logprob.extend(scores.top_logprob.flatten().tolist())
        return result

    @staticmethod
    def _add_top(result: shard_pb2.StepResult, sampled: Sampled, top_n: Indices) -> None:
        if sampled.top_token is None or sampled.top_logprob is None:
            return
        for row in top_n.nonzero()[0].tolist():
            count = int(top_n[row])
            result.top.add(
                row=row,
                token=sampled.top_token[row, :count].tolist(),
                logprob=sampled.top_logprob[row, :count].tolist(),
            )


def to_host(sampled: Sampled) -> Sampled:
    """Launch the copies of a step's tokens."""
    return Sampled(
        token=download(sampled.token),
        logprob=None if sampled.logprob is None else download(sampled.logprob),
        top_token=None if sampled.top_token is None else download(sampled.top_token),
        top_logprob=None if sampled.top_logprob is None else download(sampled.top_logprob),
    )
