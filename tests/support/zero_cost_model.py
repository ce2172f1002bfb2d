"""A shard's model at no cost, for measuring what the router itself costs."""

from __future__ import annotations

import numpy as np

from penstock_proto.shard_pb2 import StepCommand, StepResult, WarmupRequest, WarmupResponse
from support.fake_model import FakeModelConfig, FakeShardModel


class ZeroCostModel:
    """Answers at a constant cost a row and checks nothing: for measuring a router's own cost.

    Tokens are drawn once, from 1 .. vocab_size-1 without the EOS token; a step takes a slice.
    """

    POOL = 4096

    def __init__(self, config: FakeModelConfig | None = None) -> None:
        self.config = config or FakeModelConfig()
        self.num_blocks = self.config.num_blocks
        self.failed = False
        self._rng = np.random.default_rng(0)
        self._pool = self._draw(self.POOL)
        self._left: dict[int, int] = {}  # slot -> prompt tokens not computed yet
        self._decoding = 0

    def _draw(self, count: int) -> list[int]:
        tokens = self._rng.integers(1, self.config.vocab_size, size=count)
        eos = self.config.eos_token
        drawn: list[int] = np.where(tokens == eos, tokens - 1, tokens).tolist()
        return drawn

    def warmup(self, request: WarmupRequest) -> WarmupResponse:
        """As the checking model, and makes room for a step of `max_slots` rows."""
        model = FakeShardModel(self.config)
        response = model.warmup(request)
        self.num_blocks = response.num_blocks
        self._pool = self._draw(self.POOL + request.max_slots)
        return response

    def run(self, command: StepCommand) -> list[StepResult]:
        """One result a step, with made-up tokens and no log-probabilities."""
        for admission in command.admit:
            tokens = len(admission.request.prompt) + len(admission.generated)
            self._left[admission.slot] = tokens // 4 - admission.cached
        finished = 0
        for slot, length in zip(command.chunk_slot, command.chunk_length, strict=True):
            self._left[slot] -= length
            finished += self._left[slot] == 0
        if command.decode_changed:
            self._decoding = len(command.decode)
        results = []
        for step in range(command.step, command.step + command.repeat):
            start, rows = step % self.POOL, self._decoding + finished
            results.append(
                StepResult(step=step, token=self._pool[start : start + rows], device_ns=1000)
            )
        return results
