"""One request in many schedules: alone, among others, in chunks, behind a cached prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock_proto import shard_pb2

Token = tuple[int, float]  # and its log-probability, bit for bit
TOKENS = 4  # of each request


@dataclass(frozen=True)
class Turn:
    """A request's part of a schedule. Its number is that of its slot."""

    request: int
    begin: int = 0  # the step in which it is admitted
    chunk: int = 64  # tokens of its prompt a step, at most
    cached: int = 0  # tokens of its prompt that are there already, computed in another run


class Slots(Protocol):
    """Shards whose slots own blocks: LocalShard, or ShardSlots over processes."""

    def admission(
        self, slot: int, tokens: Sequence[int], sampling: shard_pb2.Sampling, **fields: Any
    ) -> shard_pb2.Admission:
        """With the slot's own blocks."""

    def run(self, **fields: Any) -> Sequence[shard_pb2.StepResult]:
        """The results of a command."""

    def release(self, *slots: int) -> None:
        """Give slots up."""


class Schedule:
    """Runs requests on a shard. prompts, sampling: of each request."""

    def __init__(
        self,
        shard: Slots,
        prompts: Sequence[Sequence[int]],
        sampling: Callable[[int], shard_pb2.Sampling],
    ) -> None:
        self._shard, self._prompts, self._sampling = shard, prompts, sampling

    def run(self, turns: Sequence[Turn]) -> dict[int, list[Token]]:
        """The tokens of each request. Nothing runs before or after."""
        found: dict[int, list[Token]] = {turn.request: [] for turn in turns}
        computed = {turn.request: turn.cached for turn in turns}
        listed: list[int] = []
        step = 0
        while any(len(tokens) < TOKENS for tokens in found.values()):
            running = [turn for turn in turns if turn.begin <= step]
            admit = [
                self._shard.admission(
                    turn.request,
                    self._prompts[turn.request],
                    self._sampling(turn.request),
                    cached=turn.cached,
                )
                for turn in turns
                if turn.begin == step
            ]
            chunks = {
                turn.request: min(turn.chunk, left)
                for turn in running
                if (left := len(self._prompts[turn.request]) - computed[turn.request])
            }
            decode = [
                turn.request
                for turn in running
                if turn.request not in chunks and len(found[turn.request]) < TOKENS
            ]
            [result] = self._shard.run(
                admit=admit,
                chunk_slot=list(chunks),
                chunk_length=list(chunks.values()),
                decode=decode if decode != listed else [],
                decode_changed=decode != listed,
            )
            listed = decode
            for request, length in chunks.items():
                computed[request] += length
            done = [one for one in chunks if computed[one] == len(self._prompts[one])]
            rows = zip([*decode, *done], result.token, result.logprob, strict=True)
            for request, token, logprob in rows:
                found[request].append((token, logprob))
            step += 1
        self._shard.release(*found)
        return found
