"""Where the time of the start went, and the memory."""

from __future__ import annotations

from collections.abc import Iterable

from penstock_proto.shard_pb2 import InfoResponse, WarmupResponse


def longest(answers: Iterable[InfoResponse | WarmupResponse]) -> dict[str, float]:
    """Seconds of each phase, of the rank that took longest: all wait for it."""
    phases: dict[str, float] = {}
    for answer in answers:
        for name, seconds in answer.phases.items():
            phases[name] = max(phases.get(name, 0.0), seconds)
    return phases


def ledger(answers: Iterable[WarmupResponse]) -> dict[str, int]:
    """Bytes of all ranks together, by what they are for, the largest part first."""
    parts: dict[str, int] = {}
    for answer in answers:
        for name, size in answer.memory.items():
            parts[name] = parts.get(name, 0) + size
    return dict(sorted(parts.items(), key=lambda part: -part[1]))
