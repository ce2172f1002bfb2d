"""Where the time of the start went."""

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
