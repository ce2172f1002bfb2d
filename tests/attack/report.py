"""What a campaign found, as lines of a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.attack.campaign import Outcome
from tests.attack.watch import Song

P99_RATIO = 2.0  # the canary's p99 against that beside an equal honest load
HEALTH_SECONDS = 0.1  # on a machine that has nothing else to do

COLUMNS = "{:<12} {:>5} {:>5} {:>6} {:>8} {:>5} {:>14}  {}"
HEAD = COLUMNS.format(
    "attack", "p50", "p99", "ratio", "/health", "alive", "router MB", "statuses seen"
)


def row(outcome: Outcome, honest: Song) -> str:
    """One line of the table; below it what fell short. Times are milliseconds."""
    song = outcome.song
    line = COLUMNS.format(
        outcome.attack.id,
        _milliseconds(song.p50),
        _milliseconds(song.p99),
        f"{song.p99 / honest.p99:.1f}",
        _milliseconds(song.worst_health),
        "yes" if outcome.alive else "NO",
        str(outcome.memory),
        " ".join(f"{end}x{count}" for end, count in outcome.ends.most_common()),
    )
    return "\n".join([line, *(f"    short: {sentence}" for sentence in outcome.short)])


def note_lateness(outcome: Outcome, honest: Song) -> None:
    """What took too long for the canary: reported, and a failure of the campaign."""
    song = outcome.song
    if song is honest:
        return
    if song.p99 > P99_RATIO * honest.p99 and not outcome.attack.works:
        times = song.p99 / honest.p99
        outcome.note(f"p99 is {times:.1f} times that beside an honest load", "canary")
    if song.worst_health > max(HEALTH_SECONDS, 2 * honest.worst_health):
        outcome.note(f"/health took {_milliseconds(song.worst_health)} ms", "canary")


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Everything that was measured; seconds and megabytes."""
    return [
        {
            "attack": outcome.attack.id,
            "what": outcome.attack.what,
            "statuses": dict(outcome.ends),
            "canary_p50": _finite(outcome.song.p50),
            "canary_p99": _finite(outcome.song.p99),
            "worst_health": _finite(outcome.song.worst_health),
            "alive": outcome.alive,
            "router_megabytes": str(outcome.memory),
            "short": outcome.short,
        }
        for outcome in outcomes
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}" if math.isfinite(seconds) else "none"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
